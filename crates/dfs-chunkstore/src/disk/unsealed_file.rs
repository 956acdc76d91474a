//! A large chunk being written: a file under a name that no start of the store accepts, renamed
//! once all of it is durable.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dfs_types::{BLOCK_SIZE, ChunkId, Crc32c};

use super::index::{Entry, Place};
use super::record::{Binding, HEAD, Head, encode_meta, padding};
use super::volume::Disk;
use crate::{ChunkHeader, ChunkSeal, File, Opening, SealedChunk, StoreError};

pub(super) struct UnsealedFile {
    disk: Arc<Disk>,
    chunk: ChunkId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<Arc<dyn File>>,
    /// Bytes written.
    length: u64,
    /// Checksum of those bytes.
    crc: Crc32c,
    is_abandoned: bool,
}

impl UnsealedFile {
    pub(super) fn new(disk: Arc<Disk>, chunk: ChunkId) -> Self {
        Self { disk, chunk, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the next pieces: whole pages with the checksums of their blocks.
    pub(super) fn write(&self, data: &[Bytes], crcs: &[Crc32c]) -> Result<(), StoreError> {
        let mut state = self.lock();
        let file = self.file(&mut state)?;
        let written = file.write_at(state.length, data);
        written.map_err(|error| self.disk.fault("writing a chunk", error))?;
        state.count(data, crcs);
        Ok(())
    }

    fn file(&self, state: &mut State) -> Result<Arc<dyn File>, StoreError> {
        if state.is_abandoned {
            return Err(StoreError::Closed);
        }
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        let disk = &self.disk;
        if disk.is_out_of_service() {
            return Err(disk.out_of_service());
        }
        let made = disk.fs.create_dir(&disk.shard_path(self.chunk));
        made.map_err(|error| disk.fault("creating a directory", error))?;
        let file = disk.fs.open(&disk.part_path(self.chunk), Opening::CreateStreaming);
        let file = file.map_err(|error| disk.fault("creating a chunk", error))?;
        state.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Writes the last pieces and the metadata of the chunk, and makes it visible once it is
    /// durable. `tail_crcs` are the checksums of the last pieces, `crcs` those of all blocks.
    pub(super) fn seal(
        &self,
        tail: &[Bytes],
        tail_crcs: &[Crc32c],
        header: &ChunkHeader,
        seal: ChunkSeal,
        crcs: &[Crc32c],
    ) -> Result<SealedChunk, StoreError> {
        let mut state = self.lock();
        let file = self.file(&mut state)?;
        let start = state.length;
        state.count(tail, tail_crcs);
        if state.length != seal.length || state.crc != seal.crc32c {
            let what = format!(
                "{} bytes with crc32c {} were written, but the seal names {} bytes with crc32c {}",
                state.length, state.crc, seal.length, seal.crc32c
            );
            return Err(StoreError::Mismatch { chunk: self.chunk, what });
        }
        let disk = &self.disk;
        let meta = encode_meta(&header.path, crcs).freeze();
        let head = Head::new(header, seal, disk.stamps.next(), &meta);
        let mut pieces = tail.to_vec();
        let meta_padding = padding(meta.len() as u64);
        pieces.extend([padding(seal.length), meta, meta_padding]);
        pieces.extend([head.encode(Binding::default()), padding(HEAD as u64)]);
        let written = file.write_at(start, &pieces);
        written.map_err(|error| disk.fault("writing a chunk", error))?;
        file.sync().map_err(|error| disk.sync_fault("syncing a chunk", error))?;
        let path = disk.chunk_path(self.chunk);
        let renamed = disk.fs.rename(&disk.part_path(self.chunk), &path);
        renamed.map_err(|error| disk.fault("renaming a chunk", error))?;
        state.file = None;
        if let Err(error) = disk.sync_shard(self.chunk) {
            if disk.index.is_claimed(self.chunk, disk.number) {
                // Taking it back would not bring back the replica that it replaced. The next start
                // finds one of the two.
                disk.fail(&error);
                return Err(disk.fault("syncing the directory of a chunk", error));
            }
            // The caller gets an error, so the chunk must never reappear. It cannot while the name
            // of its directory is not durable, which may be what failed.
            let shard = disk.shard_path(self.chunk);
            let taken_back = disk.fs.remove(&path).and_then(|()| disk.fs.sync_dir(&shard));
            if let Err(error) = taken_back {
                disk.fail(&error);
                return Err(disk.fault("reverting a chunk", error));
            }
            return Err(disk.sync_fault("syncing the directory of a chunk", error));
        }
        disk.publish(self.chunk, Entry::new(disk.number, Place::File, &head))
    }

    /// Removes the file unless it was sealed, and prevents further writes.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.is_abandoned = true;
        if state.file.take().is_some() {
            // The next start of the store removes what is left.
            let _ = self.disk.fs.remove(&self.disk.part_path(self.chunk));
        }
    }
}

impl State {
    fn count(&mut self, data: &[Bytes], crcs: &[Crc32c]) {
        let mut left: usize = data.iter().map(Bytes::len).sum();
        self.length += left as u64;
        for crc in crcs {
            let size = left.min(BLOCK_SIZE);
            self.crc = self.crc.combine(*crc, size);
            left -= size;
        }
    }
}

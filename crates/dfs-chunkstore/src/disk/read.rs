//! Reads sealed replicas, the same for both layouts: the index has the location of the parts.
//!
//! A disk can lose a write, so that the bytes in the place of a replica are intact but belong to an
//! earlier chunk. Therefore no block is returned before the head has identified this replica and
//! the block checksums have combined to its seal.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dfs_types::{BLOCK_SIZE, ChunkId, Crc32c, Sha256, block_count};

use super::failure::is_disk_failure;
use super::index::{Entry, Place};
use super::record::{HEAD, Head, decode_crcs};
use super::volume::Disk;
use crate::{Blocks, ChunkHeader, File, StoreError};

/// Maximum bytes of one read.
pub(super) const READ_MAX: u64 = 1 << 20;
/// Maximum bytes beyond a read that are prefetched.
const AHEAD_MAX: u64 = 3 << 20;

const BLOCK: u64 = BLOCK_SIZE as u64;

impl Disk {
    /// Runs `read` on the file of a replica; `NotFound` if the replica was deleted meanwhile.
    fn with_file<T>(
        &self,
        chunk: ChunkId,
        entry: &Entry,
        read: impl FnOnce(&dyn File) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = match self.open(chunk, entry) {
            Ok(file) => read(&*file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.replica_missing(chunk, entry, error))
            }
            Err(error) if is_disk_failure(&error) => {
                let what = format!("its file cannot be opened: {error}");
                Err(StoreError::Unreadable { chunk, what })
            }
            Err(error) => Err(self.fault("opening a chunk", error)),
        };
        // The space of a deleted replica may have been freed while it was read.
        if self.index.find(chunk, self.number, entry.stamp).is_none() {
            self.files.remove(super::recent::FileKey::Chunk(chunk, entry.stamp));
            return Err(StoreError::NotFound(chunk));
        }
        result
    }

    /// Reads exactly `size` bytes. An unreadable sector does not fail the disk.
    pub(super) fn read_part(
        &self,
        file: &dyn File,
        chunk: ChunkId,
        at: u64,
        size: usize,
    ) -> Result<Bytes, StoreError> {
        let failed = |source: io::Error| {
            if is_disk_failure(&source) {
                let what = format!("{size} bytes at {at} of its file are unreadable: {source}");
                return StoreError::Unreadable { chunk, what };
            }
            let disk = self.path().display().to_string();
            StoreError::Io { action: "reading a chunk", disk, source }
        };
        let bytes = file.read_at(at, size).map_err(failed)?;
        if bytes.len() < size {
            let what =
                format!("its file ends at {}, not {}", at + bytes.len() as u64, at + size as u64);
            return Err(StoreError::Damaged { chunk, what });
        }
        Ok(bytes)
    }

    pub(super) fn read_header(
        &self,
        chunk: ChunkId,
        entry: &Entry,
    ) -> Result<ChunkHeader, StoreError> {
        self.with_file(chunk, entry, |file| {
            let (head, meta) = self.read_head(file, chunk, entry)?;
            Ok(self.check_head(chunk, entry, &head, &meta)?.header(&meta))
        })
    }

    /// Reads the bytes of the head and of the meta part, which are adjacent.
    fn read_head(
        &self,
        file: &dyn File,
        chunk: ChunkId,
        entry: &Entry,
    ) -> Result<(Bytes, Bytes), StoreError> {
        let (layout, size) = (entry.layout(), entry.meta_length());
        let start = layout.head.min(layout.meta);
        let end = (layout.head + HEAD as u64).max(layout.meta + size);
        let both = self.read_part(file, chunk, start, (end - start) as usize)?;
        let part = |at: u64, size: usize| both.slice((at - start) as usize..).slice(..size);
        Ok((part(layout.head, HEAD), part(layout.meta, size as usize)))
    }

    /// Returns the head of a replica, if it is the one in the index.
    fn check_head(
        &self,
        chunk: ChunkId,
        entry: &Entry,
        head: &[u8],
        meta: &[u8],
    ) -> Result<Head, StoreError> {
        let damaged = |what: &str| StoreError::Damaged { chunk, what: what.to_owned() };
        let head = Head::decode(head, self.binding(entry))
            .filter(|head| Crc32c::of(meta) == head.meta_crc)
            .ok_or_else(|| damaged("its header does not match its checksum"))?;
        if !entry.is_described_by(chunk, &head) {
            return Err(damaged("another replica is in its place"));
        }
        Ok(head)
    }

    /// Reads the block checksums of a replica. The head of a replica set aside may be damaged; its
    /// block checksums are proven by the checksum of the chunk alone.
    fn read_table(
        &self,
        file: &dyn File,
        chunk: ChunkId,
        entry: &Entry,
    ) -> Result<Table, StoreError> {
        let found = self.read_head(file, chunk, entry).and_then(|(head, meta)| {
            let head = self.check_head(chunk, entry, &head, &meta)?;
            Ok((Some(head.seal.sha256), meta))
        });
        let (sha256, meta) = match found {
            Err(_) if entry.is_set_aside => {
                let (at, size) = (entry.layout().meta, entry.meta_length());
                (None, self.read_part(file, chunk, at, size as usize)?)
            }
            found => found?,
        };
        Ok(Table { crcs: check_table(chunk, entry, &meta)?, sha256 })
    }

    pub(super) fn read_blocks(
        &self,
        chunk: ChunkId,
        entry: &Entry,
        offset: u64,
        length: u64,
    ) -> Result<Blocks, StoreError> {
        let Range { first, blocks, bytes, ahead } = Range::of(entry.length, offset, length);
        if blocks == 0 {
            let (data, crcs) = (Bytes::new(), Vec::new());
            return Ok(Blocks { offset: first * BLOCK, data, crcs, sha256: None });
        }
        self.with_file(chunk, entry, |file| {
            let layout = entry.layout();
            let start = layout.data + first * BLOCK;
            if let (Place::Record { .. }, 0, false) = (entry.place, first, entry.is_set_aside) {
                // Head, meta and data of a record are adjacent: one read gets them all.
                let size = start + bytes - layout.head;
                let mut head = self.read_part(file, chunk, layout.head, size as usize)?;
                let mut meta = head.split_off(HEAD);
                let data = meta.split_off(entry.meta_length() as usize);
                let head = self.check_head(chunk, entry, &head, &meta)?;
                let crcs = check_table(chunk, entry, &meta)?[..blocks as usize].to_vec();
                return Ok(Blocks { offset: 0, data, crcs, sha256: Some(head.seal.sha256) });
            }
            let Table { crcs, sha256 } = self
                .tables
                .get_or_insert((chunk, entry.stamp), || self.read_table(file, chunk, entry))?;
            if ahead > 0 {
                file.will_read(start, bytes + ahead);
            }
            let data = self.read_part(file, chunk, start, bytes as usize)?;
            let crcs = crcs[first as usize..(first + blocks) as usize].to_vec();
            Ok(Blocks { offset: first * BLOCK, data, crcs, sha256 })
        })
    }

    /// Drops what is cached of the blocks that one read from `first` on returns and, if `with_proof`,
    /// of the head and the checksums that prove them.
    fn drop_cached(
        &self,
        chunk: ChunkId,
        entry: &Entry,
        first: u64,
        with_proof: bool,
    ) -> Result<(), StoreError> {
        let layout = entry.layout();
        if with_proof {
            self.tables.remove((chunk, entry.stamp));
        }
        self.with_file(chunk, entry, |file| {
            if with_proof {
                let start = layout.head.min(layout.meta);
                let end = (layout.head + HEAD as u64).max(layout.meta + entry.meta_length());
                file.drop_cached(start, end - start);
            }
            file.drop_cached(layout.data + first * BLOCK, READ_MAX);
            Ok(())
        })
    }

    /// Verifies as many blocks from `first` on as one read returns, and the head with the first
    /// ones. Reads from the disk rather than from caches, as far as possible: the checksums once for
    /// all steps, and once more for a repeated one.
    pub(super) fn verify_step(
        &self,
        chunk: ChunkId,
        entry: &Entry,
        first: u64,
        is_repeated: bool,
    ) -> Result<Verified, StoreError> {
        let read = || {
            if first == 0 {
                self.close_file(chunk, entry);
            }
            self.drop_cached(chunk, entry, first, first == 0 || is_repeated)?;
            if first == 0 {
                self.read_header(chunk, entry)?;
            }
            self.read_blocks(chunk, entry, first * BLOCK, READ_MAX)
        };
        let blocks = match read() {
            Ok(blocks) => blocks,
            Err(StoreError::Damaged { .. }) if !self.is_out_of_service() => {
                return Ok(Verified::Bad(first));
            }
            Err(error) => return Err(error),
        };
        let found = Crc32c::of_blocks(&blocks.data);
        let bad = found.iter().zip(&blocks.crcs).position(|(found, stored)| found != stored);
        Ok(match bad {
            Some(bad) => Verified::Bad(first + bad as u64),
            None => Verified::Good(found.len() as u64),
        })
    }
}

/// The block checksums of a replica.
#[derive(Debug, Clone)]
pub(super) struct Table {
    crcs: Arc<[Crc32c]>,
    /// The sha256 in its head; `None` if that is damaged.
    sha256: Option<Sha256>,
}

/// Returns the block checksums in a meta part, if they combine to the checksum of the chunk.
fn check_table(chunk: ChunkId, entry: &Entry, meta: &[u8]) -> Result<Arc<[Crc32c]>, StoreError> {
    let table = meta.get(usize::from(entry.path_length)..).unwrap_or_default();
    let crcs = decode_crcs(table);
    if Crc32c::of_whole(&crcs, entry.length) != Some(entry.crc32c) {
        let what = "its block checksums do not combine to the checksum of the chunk".to_owned();
        return Err(StoreError::Damaged { chunk, what });
    }
    Ok(crcs.into())
}

/// Result of one step of a verification.
pub(super) enum Verified {
    /// The number of good blocks; 0 past the last one.
    Good(u64),
    /// The first bad one.
    Bad(u64),
}

/// The blocks that contain a range.
struct Range {
    first: u64,
    blocks: u64,
    bytes: u64,
    /// Requested bytes beyond one read, up to the prefetch limit.
    ahead: u64,
}

impl Range {
    fn of(chunk_length: u64, offset: u64, length: u64) -> Self {
        let offset = offset.min(chunk_length);
        let wanted_end = offset.saturating_add(length).min(chunk_length);
        let first = offset / BLOCK;
        let start = first * BLOCK;
        if wanted_end == offset {
            return Self { first, blocks: 0, bytes: 0, ahead: 0 };
        }
        let end = wanted_end.next_multiple_of(BLOCK).min(start + READ_MAX).min(chunk_length);
        let ahead = wanted_end.saturating_sub(end).min(AHEAD_MAX);
        Self { first, blocks: block_count(end - start), bytes: end - start, ahead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_whole_blocks() {
        let of = |length, offset, wanted| {
            let range = Range::of(length, offset, wanted);
            (range.first, range.blocks, range.bytes)
        };
        assert_eq!(of(100, 0, 100), (0, 1, 100));
        assert_eq!(of(100, 100, 1).1, 0);
        assert_eq!(of(100, 7, 0).1, 0);
        assert_eq!(of(BLOCK + 1, BLOCK - 1, 1), (0, 1, BLOCK));
        assert_eq!(of(BLOCK + 1, BLOCK - 1, 2), (0, 2, BLOCK + 1));
        assert_eq!(of(BLOCK + 1, u64::MAX, u64::MAX).1, 0);
        assert_eq!(of(4 << 20, BLOCK + 1, u64::MAX), (1, 16, READ_MAX));
    }

    #[test]
    fn next_bytes_are_prefetched() {
        let ahead = |length, offset, wanted| Range::of(length, offset, wanted).ahead;
        assert_eq!(ahead(64 << 20, 0, READ_MAX), 0, "one read takes it all");
        assert_eq!(ahead(64 << 20, 0, 4 << 20), 3 << 20);
        assert_eq!(ahead(64 << 20, 3 << 20, 1 << 20), 0);
        assert_eq!(ahead(64 << 20, 0, u64::MAX), AHEAD_MAX);
        assert_eq!(ahead(READ_MAX + 5, 0, u64::MAX), 5, "not past the end of the chunk");
    }
}

//! New stamps for replicas that are already on a disk.
//!
//! Such a replica may not be durable: the process that wrote it may have been killed before it synced
//! it. So its bytes and its name are made durable together with the new stamp.

use std::io;

use dfs_types::{ChunkId, PlantedBug};

use super::index::{Entry, Place};
use super::recent::FileKey;
use super::record::{Binding, HEAD, Head};
use super::volume::Disk;
use crate::{File, SealedChunk, StoreError};

impl Disk {
    /// Gives a replica, whose place the caller has claimed, a new stamp.
    pub(super) fn restamp(&self, chunk: ChunkId, old: &Entry) -> Result<SealedChunk, StoreError> {
        let _turn = self.head_turn();
        if self.index.find(chunk, self.number, old.stamp).is_none() {
            return Err(StoreError::NotFound(chunk));
        }
        let file = match self.open(chunk, old) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::NotFound(chunk));
            }
            Err(error) => return Err(self.fault("opening a chunk", error)),
        };
        let (at, binding) = (old.layout().head, self.binding(old));
        let found = self.read_part(&*file, chunk, at, HEAD)?;
        let is_it = |head: &Head| old.is_described_by(chunk, head);
        let head = Head::decode(&found, binding).filter(is_it).ok_or_else(|| {
            let what = "its head is damaged, or another replica is in its place".to_owned();
            StoreError::Damaged { chunk, what }
        })?;
        let head = Head { stamp: self.stamps.next(), ..head };
        self.change_heads(old.segment(), || {
            let written = file.write_at(at, &[head.encode(binding)]);
            written.map_err(|error| self.fault("marking a chunk", error))?;
            if PlantedBug::AdoptWithoutFsync.is_planted() {
                return Ok(());
            }
            self.make_durable(&*file, chunk, old)
        })?;
        let restamped = self.index.restamp(chunk, old, head.stamp);
        self.tables.remove((chunk, old.stamp));
        self.files.remove(FileKey::Chunk(chunk, old.stamp));
        match restamped {
            Some(entry) => Ok(self.describe(chunk, &entry)),
            // The disk failed meanwhile.
            None => Err(self.out_of_service()),
        }
    }

    fn make_durable(
        &self,
        file: &dyn File,
        chunk: ChunkId,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        file.sync().map_err(|error| self.sync_fault("marking a chunk", error))?;
        let named = match entry.place {
            Place::File => self.sync_shard(chunk),
            Place::Record { .. } => self.fs.sync_dir(&self.segments_path()),
        };
        named.map_err(|error| self.sync_fault("syncing the directory of a chunk", error))
    }

    /// Returns the binding of a replica's head.
    pub(super) fn binding(&self, entry: &Entry) -> Binding {
        let salt = match entry.place {
            Place::File => 0,
            Place::Record { segment, .. } => self.segments.salt(segment).unwrap_or_default(),
        };
        entry.binding(salt)
    }
}

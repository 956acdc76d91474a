//! Changes of replicas in files of their own.

use std::io;

use dfs_types::ChunkId;

use super::index::{Entry, Place};
use super::recent::FileKey;
use super::record::State;
use super::volume::Disk;
use crate::StoreError;

impl Disk {
    /// Marks a large replica as live or set aside, durably. Returns false if it was deleted
    /// meanwhile.
    pub(super) fn mark_file(
        &self,
        chunk: ChunkId,
        entry: &Entry,
        state: State,
    ) -> Result<bool, StoreError> {
        let _turn = self.head_turn();
        if self.index.find(chunk, self.number, entry.stamp).is_none() {
            return Ok(false);
        }
        let file = match self.open(chunk, entry) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.fault("opening a chunk", error)),
        };
        self.write_mark(&*file, chunk, entry, state)?;
        file.sync().map_err(|error| self.sync_fault("marking a chunk", error))?;
        Ok(self.index.mark(chunk, self.number, entry.stamp, state))
    }

    /// Frees what a newer replica in the same place has replaced. If that fails, the next start
    /// repeats it.
    pub(super) fn free_replaced(&self, chunk: ChunkId, old: &Entry) {
        self.tables.remove((chunk, old.stamp));
        let freed = match old.place {
            // The file of the new one was renamed over it.
            Place::File => {
                self.files.remove(FileKey::Chunk(chunk, old.stamp));
                Ok(())
            }
            Place::Record { segment, .. } => self
                .open_segment(segment)
                .map_err(|error| self.fault("opening a segment", error))
                .and_then(|file| {
                    let _turn = self.head_turn();
                    self.change_heads([segment], || {
                        self.write_mark(&*file, chunk, old, State::Dead)?;
                        file.sync().map_err(|error| self.sync_fault("deleting a chunk", error))
                    })
                })
                .map(|()| self.give_back(old)),
        };
        match freed {
            Ok(()) => self.space.subtract(old.size()),
            Err(error) => tracing::warn!(%chunk, %error, "cannot free a replica that was replaced"),
        }
    }

    /// Deletes a large replica, durably. Returns false if it was deleted meanwhile.
    pub(super) fn delete_file(&self, chunk: ChunkId, entry: &Entry) -> Result<bool, StoreError> {
        // Held to the end: a later replica would have the same path.
        let Some(_claim) = self.index.take(chunk, entry)? else { return Ok(false) };
        match self.fs.remove(&self.chunk_path(chunk)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It still exists. If this error fails the disk, the index forgets it anyway.
                self.index.insert(chunk, *entry);
                return Err(self.fault("deleting a chunk", error));
            }
            _ => {}
        }
        let synced = self.fs.sync_dir(&self.shard_path(chunk));
        synced.map_err(|error| self.sync_fault("deleting a chunk", error))?;
        self.space.subtract(entry.size());
        self.files.remove(FileKey::Chunk(chunk, entry.stamp));
        self.refresh_space();
        Ok(true)
    }
}

//! Changes of replicas in separate files, and deletion of surplus ones.

use std::io;

use dfs_types::ChunkId;

use super::index::{Entry, Place};
use super::recent::FileKey;
use super::record::State;
use super::volume::Disk;
use crate::StoreError;

impl Disk {
    /// Sets a large replica aside, durably. Returns false if it was deleted meanwhile.
    pub(super) fn set_file_aside(&self, chunk: ChunkId, entry: &Entry) -> Result<bool, StoreError> {
        if self.index.copy(chunk, entry.stamp).is_none() {
            return Ok(false);
        }
        let file = match self.open(chunk, entry) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.fault("opening a chunk", error)),
        };
        self.write_mark(&*file, chunk, entry, State::SetAside)?;
        file.sync().map_err(|error| self.sync_fault("setting a chunk aside", error))?;
        Ok(self.index.set_aside(chunk, entry.stamp))
    }

    /// Deletes a large replica, durably. Returns false if it was deleted meanwhile.
    pub(super) fn delete_file(&self, chunk: ChunkId, entry: &Entry) -> Result<bool, StoreError> {
        // Held to the end: a later replica would have the same path.
        let Some(_claim) = self.index.take(chunk, entry.stamp) else { return Ok(false) };
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

    /// Deletes a replica that is not in the index, durably. If it survives, the next start deletes
    /// it again, unless the newer replica has been deleted by then.
    pub(super) fn erase(&self, chunk: ChunkId, entry: &Entry) {
        tracing::warn!(%chunk, disk = %self.path().display(), "deleting the older of two replicas");
        let erased = match entry.place {
            Place::File => {
                let removed = self.fs.remove(&self.chunk_path(chunk));
                let removed = removed.map_err(|error| self.fault("deleting a chunk", error));
                removed.and_then(|()| {
                    let synced = self.fs.sync_dir(&self.shard_path(chunk));
                    synced.map_err(|error| self.sync_fault("deleting a chunk", error))
                })
            }
            Place::Record { segment, .. } => self
                .open_segment(segment)
                .map_err(|error| self.fault("opening a segment", error))
                .and_then(|file| {
                    self.write_mark(&*file, chunk, entry, State::Dead)?;
                    file.sync().map_err(|error| self.sync_fault("deleting a chunk", error))
                })
                .map(|()| self.give_back(entry)),
        };
        match erased {
            Ok(()) => self.space.subtract(entry.size()),
            Err(error) => {
                tracing::warn!(%chunk, "cannot delete the older of two replicas: {error}");
            }
        }
    }
}

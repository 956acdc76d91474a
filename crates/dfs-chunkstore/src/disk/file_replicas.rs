//! Changes of replicas in files of their own.

use std::io;

use dfs_types::ChunkId;

use super::index::Entry;
use super::recent::FileKey;
use super::record::State;
use super::volume::Disk;
use crate::StoreError;

impl Disk {
    /// Sets a large replica aside, durably. Returns false if it was deleted meanwhile.
    pub(super) fn set_file_aside(&self, chunk: ChunkId, entry: &Entry) -> Result<bool, StoreError> {
        if self.index.find(chunk, self.number, entry.stamp).is_none() {
            return Ok(false);
        }
        let file = match self.open(chunk, entry) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.fault("opening a chunk", error)),
        };
        self.write_mark(&*file, chunk, entry, State::SetAside)?;
        file.sync().map_err(|error| self.sync_fault("setting a chunk aside", error))?;
        Ok(self.index.set_aside(chunk, self.number, entry.stamp))
    }

    /// Deletes a large replica, durably. Returns false if it was deleted meanwhile.
    pub(super) fn delete_file(&self, chunk: ChunkId, entry: &Entry) -> Result<bool, StoreError> {
        // Held to the end: a later replica would have the same path.
        let Some(_claim) = self.index.take(chunk, entry) else { return Ok(false) };
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

//! Replicas whose file is not where the index says.
//!
//! Someone may have removed the file, or the file system that held it may not be mounted any more.
//! Only the former says anything about the replica.

use std::io;

use dfs_types::{ChunkId, Level};

use super::identity_file::DiskIdentity;
use super::index::{Entry, Place};
use super::recent::FileKey;
use super::volume::Disk;
use crate::StoreError;

impl Disk {
    /// Handles the absence of the file of a replica: removes the replica from the index, so that it
    /// is neither listed nor served any more. Takes the disk out of service instead if its identity is
    /// not in its directory either.
    pub(super) fn replica_missing(
        &self,
        chunk: ChunkId,
        entry: &Entry,
        source: io::Error,
    ) -> StoreError {
        let any_level = Level(u32::MAX);
        match DiskIdentity::read(&*self.fs, &self.folder, any_level) {
            Ok(Some(identity)) if identity.disk == self.id => {
                return self.forget_missing(chunk, entry);
            }
            Ok(_) => self.unmount(),
            // Unknown, so it proves nothing about the replica.
            Err(error) => {
                tracing::warn!(%chunk, disk = %self.folder.display(), %error, "cannot tell whether a replica is gone");
            }
        }
        StoreError::Io {
            action: "opening a chunk",
            disk: self.folder.display().to_string(),
            source,
        }
    }

    /// Removes a replica from the index. Returns the error for its readers.
    fn forget_missing(&self, chunk: ChunkId, entry: &Entry) -> StoreError {
        let _claim = match self.index.take(chunk, entry) {
            Ok(Some(claim)) => claim,
            Ok(None) => return StoreError::NotFound(chunk),
            Err(replacing) => return replacing,
        };
        tracing::error!(
            %chunk, stamp = %entry.stamp, disk = %self.folder.display(),
            "the file of a replica is gone; the cluster re-replicates it"
        );
        self.space.subtract(entry.size());
        self.tables.remove((chunk, entry.stamp));
        match entry.place {
            Place::File => self.files.remove(FileKey::Chunk(chunk, entry.stamp)),
            Place::Record { segment, .. } => {
                self.segments.lose(segment);
                self.files.remove(FileKey::Segment(segment));
            }
        }
        StoreError::NotFound(chunk)
    }

    /// Drops the open file of a replica, so that the next read finds it by its name.
    pub(super) fn close_file(&self, chunk: ChunkId, entry: &Entry) {
        self.files.remove(match entry.place {
            Place::File => FileKey::Chunk(chunk, entry.stamp),
            Place::Record { segment, .. } => FileKey::Segment(segment),
        });
    }
}

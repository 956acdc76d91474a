//! In-memory index of the chunks in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::{ChunkId, Stamp};

use super::record::{Binding, Head, Layout, State, meta_length};
use crate::fs::PAGE;
use crate::{ChunkSeal, StoreError};

/// Location of a replica; the kind determines the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In a separate file.
    File,
    /// A record in a segment, at this page.
    Record { segment: u32, page: u32 },
}

/// A sealed replica. Kept small: there may be millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) seal: ChunkSeal,
    pub(super) stamp: Stamp,
    pub(super) place: Place,
    pub(super) disk: u16,
    pub(super) path_length: u16,
    pub(super) is_set_aside: bool,
}

impl Entry {
    pub(super) fn new(disk: u16, place: Place, head: &Head) -> Self {
        Self {
            seal: head.seal,
            stamp: head.stamp,
            place,
            disk,
            path_length: head.path_length,
            is_set_aside: head.state == State::SetAside,
        }
    }

    pub(super) fn layout(&self) -> Layout {
        match self.place {
            Place::File => Layout::of_file(self.path_length, self.seal.length),
            Place::Record { page, .. } => {
                let offset = u64::from(page) * PAGE as u64;
                Layout::of_record(offset, self.path_length, self.seal.length)
            }
        }
    }

    /// Returns the binding of its head; `salt` is that of its segment.
    pub(super) fn binding(&self, salt: u64) -> Binding {
        match self.place {
            Place::File => Binding::default(),
            Place::Record { .. } => Binding { salt, offset: self.layout().head },
        }
    }

    /// Returns the bytes of its path and block checksums.
    pub(super) fn meta_length(&self) -> u64 {
        meta_length(self.path_length, self.seal.length)
    }

    /// Returns the bytes it occupies on its disk.
    pub(super) fn size(&self) -> u64 {
        match self.place {
            Place::File => self.layout().end,
            Place::Record { .. } => self.layout().end - self.layout().head,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    state: Mutex<Chunks>,
}

#[derive(Debug, Default)]
struct Chunks {
    sealed: BTreeMap<ChunkId, Entry>,
    claimed: BTreeSet<ChunkId>,
}

/// Exclusive right to write or remove a chunk, until dropped.
#[derive(Debug)]
pub(super) struct Claim {
    index: Arc<Index>,
    chunk: ChunkId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.index.lock().claimed.remove(&self.chunk);
    }
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, Chunks> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a chunk that is neither sealed nor being written.
    pub(super) fn claim(self: &Arc<Self>, chunk: ChunkId) -> Result<Claim, StoreError> {
        let mut chunks = self.lock();
        if chunks.sealed.contains_key(&chunk) || !chunks.claimed.insert(chunk) {
            return Err(StoreError::Exists(chunk));
        }
        Ok(Claim { index: Arc::clone(self), chunk })
    }

    /// Removes a replica from the index and claims its chunk, so that no other replica can take its
    /// place before it is gone from the disk. `None` if there is no such replica, or its chunk is
    /// claimed.
    pub(super) fn take(self: &Arc<Self>, chunk: ChunkId, stamp: Stamp) -> Option<Claim> {
        let mut chunks = self.lock();
        chunks.sealed.get(&chunk).filter(|entry| entry.stamp == stamp)?;
        if !chunks.claimed.insert(chunk) {
            return None;
        }
        chunks.sealed.remove(&chunk);
        Some(Claim { index: Arc::clone(self), chunk })
    }

    pub(super) fn get(&self, chunk: ChunkId) -> Option<Entry> {
        self.lock().sealed.get(&chunk).copied()
    }

    /// Returns the replica with this stamp.
    pub(super) fn copy(&self, chunk: ChunkId, stamp: Stamp) -> Option<Entry> {
        self.get(chunk).filter(|entry| entry.stamp == stamp)
    }

    /// Adds a replica found on a disk. Of two replicas, as left by a disk that was temporarily out
    /// of service, the newer one is kept and the other returned.
    pub(super) fn adopt(&self, chunk: ChunkId, entry: Entry) -> Option<Entry> {
        let mut chunks = self.lock();
        match chunks.sealed.get(&chunk) {
            Some(known) if known.stamp >= entry.stamp => Some(entry),
            _ => chunks.sealed.insert(chunk, entry),
        }
    }

    pub(super) fn insert(&self, chunk: ChunkId, entry: Entry) {
        self.lock().sealed.insert(chunk, entry);
    }

    /// Returns false if there is no such replica.
    pub(super) fn set_aside(&self, chunk: ChunkId, stamp: Stamp) -> bool {
        let mut chunks = self.lock();
        let entry = chunks.sealed.get_mut(&chunk).filter(|entry| entry.stamp == stamp);
        entry.map(|entry| entry.is_set_aside = true).is_some()
    }

    pub(super) fn remove(&self, chunk: ChunkId, stamp: Stamp) -> Option<Entry> {
        let mut chunks = self.lock();
        chunks.sealed.get(&chunk).filter(|entry| entry.stamp == stamp)?;
        chunks.sealed.remove(&chunk)
    }

    /// Removes everything on a disk.
    pub(super) fn drop_disk(&self, disk: u16) {
        self.lock().sealed.retain(|_, entry| entry.disk != disk);
    }

    pub(super) fn list(&self, after: Option<ChunkId>, limit: usize) -> Vec<(ChunkId, Entry)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let chunks = self.lock();
        let found = chunks.sealed.range((start, Bound::Unbounded)).take(limit);
        found.map(|(chunk, entry)| (*chunk, *entry)).collect()
    }
}

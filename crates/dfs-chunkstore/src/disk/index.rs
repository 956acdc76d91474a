//! In-memory index of the chunks in the store.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::{ChunkId, Crc32c, Stamp};

use super::record::{Binding, Head, Layout, State, meta_length};
use super::replicas::Replicas;
use crate::StoreError;
use crate::fs::PAGE;

/// Location of a replica; the kind determines the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In a separate file.
    File,
    /// A record in a segment, at this page.
    Record { segment: u32, page: u32 },
}

/// A sealed replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) length: u64,
    pub(super) crc32c: Crc32c,
    pub(super) stamp: Stamp,
    pub(super) place: Place,
    pub(super) disk: u16,
    pub(super) path_length: u16,
    pub(super) is_set_aside: bool,
}

impl Entry {
    pub(super) fn new(disk: u16, place: Place, head: &Head) -> Self {
        Self {
            length: head.seal.length,
            crc32c: head.seal.crc32c,
            stamp: head.stamp,
            place,
            disk,
            path_length: head.path_length,
            is_set_aside: head.state == State::SetAside,
        }
    }

    pub(super) fn layout(&self) -> Layout {
        match self.place {
            Place::File => Layout::of_file(self.path_length, self.length),
            Place::Record { page, .. } => {
                let offset = u64::from(page) * PAGE as u64;
                Layout::of_record(offset, self.path_length, self.length)
            }
        }
    }

    /// Returns the segment that it is in, if any.
    pub(super) fn segment(&self) -> Option<u32> {
        match self.place {
            Place::Record { segment, .. } => Some(segment),
            Place::File => None,
        }
    }

    /// Returns whether this is its head. The stamp tells it from every other replica of the chunk.
    pub(super) fn is_described_by(&self, chunk: ChunkId, head: &Head) -> bool {
        (head.chunk, head.stamp) == (chunk, self.stamp)
            && (head.seal.length, head.seal.crc32c) == (self.length, self.crc32c)
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
        meta_length(self.path_length, self.length)
    }

    /// Returns the bytes it occupies on its disk.
    pub(super) fn size(&self) -> u64 {
        match self.place {
            Place::File => self.layout().end,
            Place::Record { .. } => self.layout().end - self.layout().head,
        }
    }
}

#[derive(Debug)]
pub(super) struct Index {
    state: Mutex<Chunks>,
}

#[derive(Debug)]
struct Chunks {
    /// Replicas by disk: a disk that was absent may come back with a replica of a chunk that has
    /// been written to another one since.
    sealed: Vec<Replicas>,
    claimed: BTreeSet<(ChunkId, u16)>,
}

impl Chunks {
    fn get(&self, chunk: ChunkId, disk: u16, stamp: Stamp) -> Option<Entry> {
        let found = self.sealed[usize::from(disk)].get(chunk);
        found.filter(|entry| entry.stamp == stamp)
    }

    fn replicas(&self, chunk: ChunkId) -> impl Iterator<Item = Entry> + use<'_> {
        self.sealed.iter().filter_map(move |replicas| replicas.get(chunk))
    }
}

/// Replicas that are visited without letting others in.
const VISITED: usize = 1_000;

/// The disk of a claim that is for all of them.
const ANY_DISK: u16 = u16::MAX;

fn all_of(chunk: ChunkId) -> RangeInclusive<(ChunkId, u16)> {
    (chunk, 0)..=(chunk, ANY_DISK)
}

/// Exclusive right to write a chunk, or to remove its replica on a disk, until dropped.
#[derive(Debug)]
pub(super) struct Claim {
    index: Arc<Index>,
    key: (ChunkId, u16),
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.index.lock().claimed.remove(&self.key);
    }
}

impl Index {
    /// Creates an empty index of this many disks.
    pub(super) fn new(disks: u16) -> Self {
        let sealed = (0..disks).map(Replicas::new).collect();
        Self { state: Mutex::new(Chunks { sealed, claimed: BTreeSet::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Chunks> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a chunk that is not being written, nor sealed on any disk but those that `retires`
    /// names.
    pub(super) fn claim(
        self: &Arc<Self>,
        chunk: ChunkId,
        retires: impl Fn(u16) -> bool,
    ) -> Result<Claim, StoreError> {
        let mut chunks = self.lock();
        let is_taken = chunks.replicas(chunk).any(|entry| !retires(entry.disk))
            || chunks.claimed.range(all_of(chunk)).next().is_some();
        if is_taken {
            return Err(StoreError::Exists(chunk));
        }
        let key = (chunk, ANY_DISK);
        chunks.claimed.insert(key);
        Ok(Claim { index: Arc::clone(self), key })
    }

    /// Claims the place of a replica, to replace it.
    pub(super) fn claim_replacement(
        self: &Arc<Self>,
        chunk: ChunkId,
        entry: &Entry,
    ) -> Result<Claim, StoreError> {
        let key = (chunk, entry.disk);
        let mut chunks = self.lock();
        if chunks.get(chunk, entry.disk, entry.stamp).is_none() {
            return Err(StoreError::NotFound(chunk));
        }
        if !chunks.claimed.insert(key) {
            return Err(StoreError::Exists(chunk));
        }
        Ok(Claim { index: Arc::clone(self), key })
    }

    /// Returns whether the place of a replica is claimed, to replace or to remove it.
    pub(super) fn is_claimed(&self, chunk: ChunkId, disk: u16) -> bool {
        self.lock().claimed.contains(&(chunk, disk))
    }

    /// Returns the replica on a disk with this stamp; fails while the one there is being replaced or
    /// removed.
    pub(super) fn find_unclaimed(
        &self,
        chunk: ChunkId,
        disk: u16,
        stamp: Stamp,
    ) -> Result<Option<Entry>, StoreError> {
        let (key, chunks) = ((chunk, disk), self.lock());
        if chunks.claimed.contains(&key) {
            return Err(StoreError::Replacing(chunk));
        }
        Ok(chunks.get(chunk, disk, stamp))
    }

    /// Removes a replica from the index and claims its place, so that no other replica can take it
    /// before this one is gone from the disk. `None` if there is no such replica; fails while it is
    /// being replaced or removed.
    pub(super) fn take(
        self: &Arc<Self>,
        chunk: ChunkId,
        entry: &Entry,
    ) -> Result<Option<Claim>, StoreError> {
        let key = (chunk, entry.disk);
        let mut chunks = self.lock();
        if chunks.claimed.contains(&key) {
            return Err(StoreError::Replacing(chunk));
        }
        if chunks.get(chunk, entry.disk, entry.stamp).is_none() {
            return Ok(None);
        }
        chunks.claimed.insert(key);
        chunks.sealed[usize::from(entry.disk)].remove(chunk);
        Ok(Some(Claim { index: Arc::clone(self), key }))
    }

    /// Returns the replicas of a chunk, one for each disk that has one.
    pub(super) fn replicas(&self, chunk: ChunkId) -> Vec<Entry> {
        self.lock().replicas(chunk).collect()
    }

    /// Returns the replica on a disk with this stamp.
    pub(super) fn find(&self, chunk: ChunkId, disk: u16, stamp: Stamp) -> Option<Entry> {
        self.lock().get(chunk, disk, stamp)
    }

    /// Returns the replica that it replaces, if any.
    pub(super) fn insert(&self, chunk: ChunkId, entry: Entry) -> Option<Entry> {
        self.lock().sealed[usize::from(entry.disk)].insert(chunk, &entry)
    }

    /// Adds a replica found on a disk. Returns the older one if there are two of a chunk.
    pub(super) fn adopt(&self, chunk: ChunkId, entry: Entry) -> Option<Entry> {
        self.lock().sealed[usize::from(entry.disk)].adopt(chunk, entry)
    }

    /// Replaces everything on a disk.
    pub(super) fn set_disk(&self, replicas: Replicas) {
        let mut chunks = self.lock();
        let disk = usize::from(replicas.disk());
        chunks.sealed[disk] = replicas;
    }

    /// Removes everything on a disk.
    pub(super) fn drop_disk(&self, disk: u16) {
        self.set_disk(Replicas::new(disk));
    }

    /// Records a live or set-aside state. Returns false if there is no such replica.
    pub(super) fn mark(&self, chunk: ChunkId, disk: u16, stamp: Stamp, state: State) -> bool {
        let mut chunks = self.lock();
        let Some(mut entry) = chunks.get(chunk, disk, stamp) else { return false };
        entry.is_set_aside = state == State::SetAside;
        chunks.sealed[usize::from(disk)].insert(chunk, &entry);
        true
    }

    /// Gives a replica another stamp. `None` if there is no such replica.
    pub(super) fn restamp(&self, chunk: ChunkId, old: &Entry, stamp: Stamp) -> Option<Entry> {
        let mut chunks = self.lock();
        let entry = Entry { stamp, ..chunks.get(chunk, old.disk, old.stamp)? };
        chunks.sealed[usize::from(old.disk)].insert(chunk, &entry);
        Some(entry)
    }

    pub(super) fn remove(&self, chunk: ChunkId, disk: u16, stamp: Stamp) -> Option<Entry> {
        let mut chunks = self.lock();
        chunks.get(chunk, disk, stamp)?;
        chunks.sealed[usize::from(disk)].remove(chunk)
    }

    /// Visits the replicas on a disk, in chunk order. Others may change in between.
    pub(super) fn for_each_on(&self, disk: u16, mut visit: impl FnMut(ChunkId, &Entry)) {
        let mut after = None;
        loop {
            let chunks = self.lock();
            let before = after;
            for (chunk, entry) in chunks.sealed[usize::from(disk)].after(before).take(VISITED) {
                visit(chunk, &entry);
                after = Some(chunk);
            }
            if after == before {
                return;
            }
        }
    }

    /// Lists replicas in chunk order; all of a chunk together, so a few more than `limit`.
    pub(super) fn list(&self, after: Option<ChunkId>, limit: usize) -> Vec<(ChunkId, Entry)> {
        let chunks = self.lock();
        let mut disks: Vec<_> = chunks.sealed.iter().map(|it| it.after(after).peekable()).collect();
        let mut found = Vec::new();
        while found.len() < limit {
            let next = disks.iter_mut().filter_map(|disk| Some(disk.peek()?.0)).min();
            let Some(next) = next else { break };
            let of_next =
                disks.iter_mut().filter_map(|disk| disk.next_if(|(chunk, _)| *chunk == next));
            found.extend(of_next);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: ChunkId = ChunkId(1);

    fn entry(stamp: u64) -> Entry {
        Entry {
            length: 1,
            crc32c: Crc32c(0),
            stamp: Stamp(stamp),
            place: Place::File,
            disk: 0,
            path_length: 0,
            is_set_aside: false,
        }
    }

    #[test]
    fn k08_replica_that_is_being_replaced_or_removed_is_not_absent() {
        let index = Arc::new(Index::new(1));
        index.insert(CHUNK, entry(1));
        let is_busy = || {
            let take = index.take(CHUNK, &entry(1));
            let find = index.find_unclaimed(CHUNK, 0, Stamp(1));
            matches!((take, find), (Err(StoreError::Replacing(_)), Err(StoreError::Replacing(_))))
        };
        let replacement = index.claim_replacement(CHUNK, &entry(1)).unwrap();
        assert!(is_busy());
        drop(replacement);
        let removal = index.take(CHUNK, &entry(1)).unwrap().unwrap();
        assert!(is_busy(), "its file may still be there");
        drop(removal);
        assert!(index.take(CHUNK, &entry(1)).unwrap().is_none());
        index.insert(CHUNK, entry(2));
        assert_eq!(index.find_unclaimed(CHUNK, 0, Stamp(1)).unwrap(), None);
        assert!(index.take(CHUNK, &entry(1)).unwrap().is_none());
    }
}

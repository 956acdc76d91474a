//! Comparison of what a disk lists with the records that name it. Pure.
//!
//! A replica is judged by three observations in this order: the record of its chunk, the list of
//! its disk, and the record once more. What may have changed in between proves nothing:
//!
//! | named by the record | listed | finding |
//! |---|---|---|
//! | before and after | no | gone: it was sealed before it was named, and only doomed replicas are deleted |
//! | as gone | yes | back |
//! | as doomed, or by a tombstone | yes | to be deleted again |
//! | no, as there is no record, and the chunk is below the floor | yes | orphan: no commit can bring it in |
//! | no, though there is a record | yes | adoptable if the chunk lacks it, otherwise surplus |
//!
//! The caller provides complete lists only, of disks that were in service from the first page to
//! the last.

use dfs_types::{ChunkId, Crc32c, Part, PlantedBug, Redundancy};

use crate::chunk_health::{Cluster, judge};
use crate::namespace::{Chunk, Replica, ReplicaId, ReplicaMark};

/// A replica that a disk lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its length in bytes.
    pub length: u64,
    /// crc32c of the whole replica. Its sha256 is compared by its node before it is adopted.
    pub crc32c: Crc32c,
    /// Whether its node set it aside as bad.
    pub is_set_aside: bool,
}

/// The record of a chunk, read after the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordAfter<'a> {
    /// There is none.
    Absent,
    /// There is one that cannot be decoded. It may name any replica.
    Unreadable,
    /// The record.
    Chunk(&'a Chunk),
}

/// One replica of a disk, as seen by records and list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting<'a> {
    /// The chunk.
    pub chunk: ChunkId,
    /// The replica.
    pub replica: ReplicaId,
    /// The record of the chunk, read before the list; `None` if there was none.
    pub before: Option<&'a Chunk>,
    /// The replica in the list; `None` if it is not listed.
    pub listed: Option<&'a Listed>,
    /// The record of the chunk, read after the list.
    pub after: RecordAfter<'a>,
    /// Whether a repair or move of the chunk was in progress between the list and the record after
    /// it: the list may contain a replica that it is about to commit.
    pub is_moving: bool,
    /// The committed floor, read before the record after the list.
    pub floor: ChunkId,
}

/// What follows from a sighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Nothing.
    Consistent,
    /// The record names a replica that does not exist any more.
    Gone,
    /// A replica that was recorded as gone exists.
    Back,
    /// A replica that is to be deleted exists.
    Undeleted,
    /// A replica of no chunk.
    Orphan,
    /// A replica that the record does not name, and that the chunk lacks.
    Adoptable,
    /// A replica that the record does not name, of a chunk that lacks none.
    Surplus,
}

impl Sighting<'_> {
    /// Returns what follows. `cluster` says which other replicas of the chunk count.
    pub fn finding(&self, cluster: &Cluster) -> Finding {
        match (self.listed, self.after) {
            (Some(_), RecordAfter::Absent)
                if self.chunk < self.floor || PlantedBug::GcWithoutProof.is_planted() =>
            {
                Finding::Orphan
            }
            (_, RecordAfter::Unreadable | RecordAfter::Absent) => Finding::Consistent,
            (None, RecordAfter::Chunk(after)) => self.unlisted(after),
            (Some(listed), RecordAfter::Chunk(after)) => self.listed(listed, after, cluster),
        }
    }

    fn unlisted(&self, after: &Chunk) -> Finding {
        let is_kept = |chunk: &Chunk| {
            let named = named(chunk, self.replica);
            let is_kept = |it: &Replica| matches!(it.mark, ReplicaMark::Sound | ReplicaMark::Bad);
            !chunk.is_tombstone() && named.is_some_and(is_kept)
        };
        if self.before.is_some_and(is_kept) && is_kept(after) {
            Finding::Gone
        } else {
            Finding::Consistent
        }
    }

    fn listed(&self, listed: &Listed, after: &Chunk, cluster: &Cluster) -> Finding {
        match named(after, self.replica) {
            Some(_) if after.is_tombstone() => Finding::Undeleted,
            Some(named) => match named.mark {
                ReplicaMark::Doomed => Finding::Undeleted,
                ReplicaMark::Gone => Finding::Back,
                ReplicaMark::Sound | ReplicaMark::Bad => Finding::Consistent,
            },
            // Once its record is removed, it is an orphan.
            None if after.is_tombstone() => Finding::Consistent,
            None if self.is_moving => Finding::Consistent,
            None => self.unnamed(listed, after, cluster),
        }
    }

    fn unnamed(&self, listed: &Listed, after: &Chunk, cluster: &Cluster) -> Finding {
        let health = judge(after, cluster);
        let node = cluster.node(self.replica.disk);
        let is_here = |(replica, health): (&Replica, &dfs_types::ReplicaHealth)| {
            replica.part == self.replica.part
                && cluster.node(replica.disk) == node
                && health.is_durable()
        };
        let is_whole = self.replica.part == Part::WHOLE
            && matches!(after.redundancy, Redundancy::Replicated { .. });
        let is_new_here = !after.replicas.iter().zip(&health.replicas).any(is_here);
        let is_same = (listed.length, listed.crc32c) == (after.seal.length, after.seal.crc32c);
        let is_intact = is_same && !listed.is_set_aside;
        if health.lacks() == 0 {
            Finding::Surplus
        } else if is_whole && is_new_here && is_intact && node.is_some() {
            Finding::Adoptable
        } else {
            // Of a chunk that lacks replicas, nothing is given up.
            Finding::Consistent
        }
    }
}

fn named(chunk: &Chunk, replica: ReplicaId) -> Option<&Replica> {
    chunk.replicas.iter().find(|it| ReplicaId::of(it) == replica)
}

#[cfg(test)]
mod tests;

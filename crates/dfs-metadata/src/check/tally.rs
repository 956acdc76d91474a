//! What is remembered until the end of a check, as small as it can be.

use std::collections::BTreeSet;

use dfs_types::{ChunkId, InodeId};

use super::{ProblemKind, Report};
use crate::keys;
use crate::namespace::{Chunk, ChunkKey};

/// Inodes, and the ways in which they are known.
#[derive(Default)]
pub(super) struct Inodes {
    /// Records, in order.
    pub(super) records: Vec<InodeId>,
    pub(super) named: Vec<InodeId>,
    pub(super) unlinked: Vec<InodeId>,
}

impl Inodes {
    /// Each inode but the root has one name, or is unlinked once.
    pub(super) fn judge(mut self, report: &mut Report) {
        self.named.sort_unstable();
        self.unlinked.sort_unstable();
        let twice = |of: &[InodeId]| -> Vec<InodeId> {
            of.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
        };
        let mut add = |inode: InodeId, what: &str| {
            report.add(ProblemKind::Inode, &keys::inode(inode), what);
        };
        for inode in twice(&self.named) {
            add(inode, "it has several names");
        }
        for inode in twice(&self.unlinked) {
            add(inode, "it is unlinked twice");
        }
        for inode in &self.unlinked {
            if self.named.binary_search(inode).is_ok() {
                add(*inode, "it has a name and is unlinked");
            }
        }
        for inode in self.records {
            let is_named = self.named.binary_search(&inode).is_ok();
            match is_named || self.unlinked.binary_search(&inode).is_ok() {
                true if inode == InodeId::ROOT => add(inode, "the root has a name"),
                false if inode != InodeId::ROOT => add(inode, "it has no name"),
                _ => {}
            }
        }
    }
}

/// Chunks, and the extents that refer to them.
#[derive(Default)]
pub(super) struct Chunks {
    records: Vec<Record>,
    /// Each with the end of the extent in the chunk.
    extents: Vec<(ChunkId, u64)>,
}

struct Record {
    chunk: ChunkId,
    references: u32,
    length: u64,
}

impl Chunks {
    /// Records come in order.
    pub(super) fn record(&mut self, chunk: ChunkId, references: u32, length: u64) {
        self.records.push(Record { chunk, references, length });
    }

    pub(super) fn extent(&mut self, chunk: ChunkId, end: u64) {
        self.extents.push((chunk, end));
    }

    /// Each chunk is referred to as often as it says, and each extent lies within its chunk.
    pub(super) fn judge(mut self, report: &mut Report) {
        self.extents.sort_unstable();
        let mut add = |chunk: ChunkId, what: String| {
            report.add(ProblemKind::Chunk, &ChunkKey::record(chunk), what);
        };
        let mut left = &self.extents[..];
        // Extents up to a chunk; the first number is of those that belong to no record before it.
        let mut take = |upto: Option<ChunkId>| {
            let missing = left.partition_point(|(id, _)| upto.is_none_or(|upto| *id < upto));
            let (before, rest) = left.split_at(missing);
            let (own, rest) =
                rest.split_at(rest.partition_point(|(id, _)| upto.is_some_and(|upto| *id == upto)));
            left = rest;
            (before, own)
        };
        let no_record = |before: &[(ChunkId, u64)], add: &mut dyn FnMut(ChunkId, String)| {
            for group in before.chunk_by(|a, b| a.0 == b.0) {
                add(
                    group[0].0,
                    format!("{} extents refer to it, and it does not exist", group.len()),
                );
            }
        };
        for record in &self.records {
            let (before, own) = take(Some(record.chunk));
            no_record(before, &mut add);
            if own.len() as u64 != u64::from(record.references) {
                let (says, counted) = (record.references, own.len());
                add(record.chunk, format!("it says {says} extents refer to it, {counted} do"));
            }
            if let Some((_, end)) = own.last().filter(|(_, end)| *end > record.length) {
                let length = record.length;
                add(record.chunk, format!("an extent ends at {end} of its {length} bytes"));
            }
        }
        no_record(take(None).0, &mut add);
    }
}

/// Work keys that follow from the chunk records, and were not met yet.
#[derive(Default)]
pub(super) struct Work {
    repairs: BTreeSet<ChunkId>,
    deletions: BTreeSet<ChunkId>,
    /// Chunks whose records cannot be read: nobody knows what they need.
    pub(super) unreadable: BTreeSet<ChunkId>,
}

impl Work {
    /// Records come before all work keys.
    pub(super) fn record(&mut self, id: ChunkId, chunk: &Chunk) {
        if !chunk.is_at_rest() {
            self.repairs.insert(id);
        }
        if chunk.awaits_deletion() {
            self.deletions.insert(id);
        }
    }

    pub(super) fn repair_key(&mut self, chunk: ChunkId, key: &[u8], report: &mut Report) {
        if !self.repairs.remove(&chunk) && !self.unreadable.contains(&chunk) {
            report.add(ProblemKind::Work, key, "the chunk needs no repair");
        }
    }

    pub(super) fn deletion_key(&mut self, chunk: ChunkId, key: &[u8], report: &mut Report) {
        if !self.deletions.remove(&chunk) && !self.unreadable.contains(&chunk) {
            report.add(ProblemKind::Work, key, "nothing of the chunk waits for its deletion");
        }
    }

    /// What is left has no key.
    pub(super) fn judge(self, report: &mut Report) {
        for chunk in self.repairs {
            let key = ChunkKey::repair(chunk);
            report.add(ProblemKind::Work, &key, "missing, though the chunk is not at rest");
        }
        for chunk in self.deletions {
            let key = ChunkKey::deletion(chunk);
            report.add(ProblemKind::Work, &key, "missing, though replicas wait for their deletion");
        }
    }
}

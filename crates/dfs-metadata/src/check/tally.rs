//! State that is kept until the end of a check, as compact as possible.

use std::collections::BTreeSet;

use dfs_types::{ChunkId, InodeId};

use super::{ProblemKind, Report};
use crate::keys;
use crate::namespace::{Chunk, ChunkKey};

/// Inodes and their names.
#[derive(Default)]
pub(super) struct Inodes {
    /// Inodes with a record, in order.
    pub(super) records: Vec<InodeId>,
    pub(super) named: Vec<InodeId>,
    pub(super) unlinked: Vec<InodeId>,
}

impl Inodes {
    /// Checks that each inode but the root has one name or is unlinked once.
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

/// Chunks and their extents.
#[derive(Default)]
pub(super) struct Chunks {
    records: Vec<Record>,
    /// Each with its end in the chunk.
    extents: Vec<(ChunkId, u64)>,
}

struct Record {
    chunk: ChunkId,
    references: u32,
    length: u64,
}

impl Chunks {
    /// Adds a chunk record; called in order.
    pub(super) fn record(&mut self, chunk: ChunkId, references: u32, length: u64) {
        self.records.push(Record { chunk, references, length });
    }

    pub(super) fn extent(&mut self, chunk: ChunkId, end: u64) {
        self.extents.push((chunk, end));
    }

    /// Checks that each chunk has as many extents as its record says, all within the chunk.
    pub(super) fn judge(mut self, report: &mut Report) {
        self.extents.sort_unstable();
        let mut add = |chunk: ChunkId, what: String| {
            report.add(ProblemKind::Chunk, &ChunkKey::record(chunk), what);
        };
        let mut left = &self.extents[..];
        // Takes the extents up to a chunk; the first number counts those of chunks without a
        // record.
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
                    format!("{} extents refer to it, but it does not exist", group.len()),
                );
            }
        };
        for record in &self.records {
            let (before, own) = take(Some(record.chunk));
            no_record(before, &mut add);
            if own.len() as u64 != u64::from(record.references) {
                let (says, counted) = (record.references, own.len());
                add(
                    record.chunk,
                    format!("references recorded: {says}; extents that refer to it: {counted}"),
                );
            }
            if let Some((_, end)) = own.last().filter(|(_, end)| *end > record.length) {
                let length = record.length;
                add(record.chunk, format!("an extent ends at {end} of its {length} bytes"));
            }
        }
        no_record(take(None).0, &mut add);
    }
}

/// Work keys that follow from the chunk records and were not seen yet.
#[derive(Default)]
pub(super) struct Work {
    repairs: BTreeSet<ChunkId>,
    deletions: BTreeSet<ChunkId>,
    /// Chunks with unreadable records, whose work is unknown.
    pub(super) unreadable: BTreeSet<ChunkId>,
}

impl Work {
    /// Adds a chunk record; all come before the work keys.
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
            report.add(ProblemKind::Work, key, "no replica of the chunk is waiting for deletion");
        }
    }

    /// Reports the work keys that are missing.
    pub(super) fn judge(self, report: &mut Report) {
        for chunk in self.repairs {
            let key = ChunkKey::repair(chunk);
            report.add(ProblemKind::Work, &key, "missing, though the chunk is not at rest");
        }
        for chunk in self.deletions {
            let key = ChunkKey::deletion(chunk);
            report.add(
                ProblemKind::Work,
                &key,
                "missing, though replicas are waiting for deletion",
            );
        }
    }
}

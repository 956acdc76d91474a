//! Checking a whole store without changing it.
//!
//! One walk over all keys at one snapshot, a few hundred at a time. Related records are compared at
//! once where a page of reads suffices. Everything else is kept until the end, which takes memory:
//! 16 bytes per file or directory, 32 per chunk, 32 per extent, 16 per file of several extents, 32
//! per chunk with work, and all disks. A hundred million one-chunk files are 7.5 GiB.
//!
//! The snapshot must last: on an engine that drops old revisions (etcd, after five to ten minutes)
//! a longer check ends with `Compacted`.

mod tally;
mod walk;

use dfs_types::Revision;

use crate::engine::Engine;
use crate::{Error, keys};

/// Maximum number of problems that the report details.
const PROBLEMS_MAX: usize = 1_000;

/// Contents of a store, and its problems.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Revision of the snapshot.
    pub revision: Revision,
    /// Number of keys.
    pub keys: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Files and special files, including unlinked ones.
    pub files: u64,
    /// Directories, including unlinked ones.
    pub directories: u64,
    /// Symlinks, including unlinked ones.
    pub symlinks: u64,
    /// Names in directories.
    pub names: u64,
    /// Unlinked inodes that are not reaped yet.
    pub unlinked: u64,
    /// Uploads being staged.
    pub uploads: u64,
    /// Extents, including those of one-chunk files.
    pub extents: u64,
    /// Chunks that something refers to.
    pub chunks: u64,
    /// Chunks that nothing refers to any more.
    pub tombstones: u64,
    /// Nodes, including removed ones.
    pub nodes: u64,
    /// Replies kept for repeats.
    pub answers: u64,
    /// Number of problems.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
}

/// An inconsistency or a damaged record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Kind of the problem.
    pub kind: ProblemKind,
    /// Key in printable form.
    pub key: String,
    /// Description.
    pub what: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// A record that cannot be decoded.
    Unreadable,
    /// A record of a newer release.
    NewerFormat,
    /// A key of no known kind.
    UnknownKey,
    /// A required key that is missing.
    Missing,
    /// The store is an unfinished migration target.
    UnfinishedMigration,
    /// A name without its inode, or one that contradicts it.
    Name,
    /// An inode without a name, or with several.
    Inode,
    /// Extents that do not fit their file.
    Extent,
    /// A chunk with a wrong number of references, or on unknown disks.
    Chunk,
    /// A work key that the chunk record does not call for, or one that is missing.
    Work,
}

impl ProblemKind {
    /// Returns its name for machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::NewerFormat => "newer_format",
            Self::UnknownKey => "unknown_key",
            Self::Missing => "missing",
            Self::UnfinishedMigration => "unfinished_migration",
            Self::Name => "name",
            Self::Inode => "inode",
            Self::Extent => "extent",
            Self::Chunk => "chunk",
            Self::Work => "work",
        }
    }
}

impl Report {
    /// Returns whether no problem was found.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn add(&mut self, kind: ProblemKind, key: &[u8], what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { kind, key: keys::show(key), what: what.into() });
        }
    }
}

/// Checks the store of a cluster, passing the number of keys read so far to `observe`. Fails with
/// errors of the engine, and with [`Error::NotInitialised`] for an empty store; problems are in the
/// report.
pub async fn check(
    engine: &dyn Engine,
    observe: &(dyn Fn(u64) + Send + Sync),
) -> Result<Report, Error> {
    let snapshot = engine.snapshot().await?;
    if snapshot.range(&[], &[], 1).await?.is_empty() {
        return Err(Error::NotInitialised);
    }
    let mut walk = walk::Walk::new(&*snapshot).await?;
    while walk.step().await? {
        observe(walk.report.keys);
    }
    walk.finish().await
}

//! Looking a whole store over, without changing anything.
//!
//! One walk over all keys at one snapshot, some hundred at a time. What two records say of each
//! other is looked up at once where a page of reads can tell. The rest is remembered until the end,
//! which takes memory: 16 bytes a file or directory, 32 a chunk, 32 an extent, 16 a file of several
//! extents, 32 a chunk with work, and all disks. A hundred million files of one chunk are 7.5 GiB.
//!
//! The snapshot must last: an engine that forgets old states (etcd, after five to ten minutes) ends
//! the check with `Compacted`.

mod tally;
mod walk;

use dfs_types::Revision;

use crate::engine::Engine;
use crate::{Error, keys};

/// Problems of which the report tells more than their number.
const PROBLEMS_MAX: usize = 1_000;

/// What a store holds, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Of the snapshot.
    pub revision: Revision,
    /// All keys.
    pub keys: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Files and special files, unlinked ones included.
    pub files: u64,
    /// Directories, likewise.
    pub directories: u64,
    /// Symlinks, likewise.
    pub symlinks: u64,
    /// Names in directories.
    pub names: u64,
    /// Things that lost their names and are not reaped yet.
    pub unlinked: u64,
    /// Uploads being staged.
    pub uploads: u64,
    /// Extents, those of one-chunk files included.
    pub extents: u64,
    /// Chunks that something refers to.
    pub chunks: u64,
    /// Chunks that nothing refers to any more.
    pub tombstones: u64,
    /// Nodes, removed ones included.
    pub nodes: u64,
    /// Answers kept for repeats.
    pub answers: u64,
    /// How many problems there are.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
}

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of which kind.
    pub kind: ProblemKind,
    /// Under which key, as messages show it.
    pub key: String,
    /// What it is.
    pub what: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// A record that cannot be read.
    Unreadable,
    /// A record that a newer version has written.
    NewerFormat,
    /// A key that nothing has.
    UnknownKey,
    /// A key that must be there and is not.
    Missing,
    /// The store is half a replica.
    UnfinishedMigration,
    /// A name without what it names, or that says something else of it.
    Name,
    /// An inode without a name, or with several.
    Inode,
    /// Extents that do not fit their file.
    Extent,
    /// A chunk whose references are counted wrong, or whose replicas cannot be.
    Chunk,
    /// A work key that the record of its chunk does not call for, or one that is missing.
    Work,
}

impl ProblemKind {
    /// Its name, for programs.
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
    /// Whether nothing is wrong.
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

/// Looks over the store of a cluster. `observe` is told how many keys were looked at. An error is
/// that of the engine, or [`Error::NotInitialised`] for an empty store; problems are in the report.
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

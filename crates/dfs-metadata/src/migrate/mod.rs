//! Migrating the store of a stopped cluster from one engine to another.
//!
//! ```text
//!  1. mark     the target must be empty, or an unfinished copy of the same source
//!  2. write    walk both side by side and write the differences, page by page
//!  3. verify   walk both again: now nothing may differ
//!  4. unmark   one commit removes the mark: the target can be opened
//! ```
//!
//! The mark, `s/migration`, makes `Namespace::open` and `init` refuse the target, and every page is
//! conditioned on its version, so that of two migrations into one target only the later continues.
//! It contains no cursor: a resumed migration compares from the start, which costs reads but no
//! writes, and is correct even if the source was in use in between.
//!
//! Not copied verbatim:
//!
//! - `s/cluster` gets the next **incarnation**. Two stores of one cluster are dangerous: each would
//!   delete the chunks that only the other knows. Once a datanode has registered with the target,
//!   it refuses the source. To go back, migrate back. The price is that uploads planned before have
//!   to start over, as after a restore.
//! - Renewals of leases are not copied; **epochs** are copied, so that they only grow.
//!
//! Versions are the target's own. No record refers to a revision: conditions, watches and caches
//! exist only within a process, and all processes of the cluster have stopped.

mod walk;

use std::time::Duration;

use bytes::Bytes;
use dfs_types::{ClusterId, ErrorCode, Incarnation, LeaseEpoch, Level, Revision, Sha256};
use tokio::time::Instant;

use self::walk::{Totals, Walk};
use crate::codec::Record as _;
use crate::engine::lease::{LeaseGrant, WORKERS};
use crate::engine::{COMMIT_BYTES_MAX, COMMIT_KEYS_MAX, Commit, Condition, Engine, Outcome, Write};

use crate::records::setting::{Cluster, MigrationMark};
use crate::{Error, keys};

/// Writes per commit: each commit also names the mark.
const WRITES_MAX: usize = COMMIT_KEYS_MAX - 1;
/// TTL of the source's worker lease.
const LEASE_TTL: Duration = Duration::from_secs(15);
/// Holder of that lease. Always the same, so that an interrupted migration can be resumed at once.
const HOLDER: &str = "dfs metadata migrate";

/// Why a migration failed. Running it again resumes it where possible.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MigrateError {
    /// The source is in use.
    #[error(
        "the source is in use by a coordinator, or was until recently; stop all of them, wait \
         half a minute, and try again"
    )]
    SourceInUse,
    /// The source failed, holds no cluster, or is itself an unfinished migration.
    #[error("the source cannot be copied")]
    Source(#[source] Error),
    /// The source was changed while it was copied.
    #[error(
        "the source was changed while it was copied: {key} differs; stop all its users and \
         migrate again"
    )]
    SourceChanged {
        /// The first key that differs.
        key: String,
    },
    /// The target is not empty.
    #[error("the target is not empty: it holds {what}; nothing was changed")]
    TargetNotEmpty {
        /// First content found.
        what: String,
    },
    /// The target is an unfinished copy of another store.
    #[error(
        "the target is an unfinished copy of cluster {cluster}, incarnation {incarnation}, which \
         is another source; nothing was changed"
    )]
    OtherCopy {
        /// Cluster of the copy.
        cluster: ClusterId,
        /// Incarnation of the copy.
        incarnation: Incarnation,
    },
    /// Another migration writes to the same target.
    #[error(
        "another migration writes to the target, or did until it was killed; migrate again \
         when none is running"
    )]
    TargetTaken,
    /// The target failed.
    #[error("the target failed")]
    Target(#[source] Error),
}

impl MigrateError {
    /// Returns its error code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::SourceInUse | Self::TargetTaken | Self::SourceChanged { .. } => ErrorCode::Busy,
            Self::TargetNotEmpty { .. } | Self::OtherCopy { .. } => ErrorCode::NotEmpty,
            Self::Source(error) | Self::Target(error) => error.start_code(),
        }
    }
}

/// Progress of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Number of keys that are correct in the target.
    Migrated(u64),
    /// Number of keys verified.
    Verified(u64),
}

/// A finished migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Id of the cluster.
    pub cluster: ClusterId,
    /// Incarnation of the target: one above that of the source.
    pub incarnation: Incarnation,
    /// Keys of the target.
    pub keys: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Hash of all keys and values of the target, each with its length, in key order.
    pub checksum: Sha256,
    /// Writes made; fewer than keys when an earlier migration was resumed.
    pub written: u64,
    /// Set if an earlier migration was resumed.
    pub is_resumed: bool,
}

/// Copies the store of a stopped cluster from `source` to `target`, and verifies it.
///
/// Holds the worker lease of the source meanwhile, which a running coordinator would hold. Only its
/// new epoch is written into the source.
pub async fn migrate(
    source: &dyn Engine,
    target: &dyn Engine,
    observe: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Migrated, MigrateError> {
    let (cluster, condition) = source_cluster(source).await?;
    let mut hold = Hold::take(source, condition).await?;
    let (mark, is_resumed) = set_mark(target, &cluster).await?;

    let mut written = 0;
    let mut walk = Walk::new(source, target);
    while let Some(differences) = walk.step().await? {
        hold.keep().await?;
        written += differences.len() as u64;
        write(target, &mark, differences).await?;
        observe(Progress::Migrated(walk.totals.keys));
    }

    let mut walk = Walk::new(source, target);
    while let Some(differences) = walk.step().await? {
        hold.keep().await?;
        if let Some(first) = differences.first() {
            return Err(MigrateError::SourceChanged { key: keys::show(first.key()) });
        }
        observe(Progress::Verified(walk.totals.keys));
    }
    remove_mark(target, &mark).await?;
    let Totals { keys, bytes, checksum } = walk.totals;
    Ok(Migrated {
        cluster: cluster.id,
        incarnation: cluster.incarnation.next(),
        keys,
        bytes,
        checksum: checksum.finish(),
        written,
        is_resumed,
    })
}

/// Returns the cluster of the source, unless it is unfinished or of a newer release, and the
/// condition that its write level is unchanged.
async fn source_cluster(source: &dyn Engine) -> Result<(Cluster, Condition), MigrateError> {
    let read = async {
        let snapshot = source.snapshot().await?;
        crate::namespace::refuse_unfinished(&*snapshot).await?;
        let found = crate::namespace::read_cluster(&*snapshot, Level::NEWEST).await?;
        let (cluster, _, version) = found.ok_or(Error::NotInitialised)?;
        Ok((cluster, Condition::Version(keys::FORMAT, version)))
    };
    read.await.map_err(MigrateError::Source)
}

/// The worker lease of the source, held so that no background work begins there.
struct Hold<'a> {
    source: &'a dyn Engine,
    /// Holds while the write level of the source is unchanged.
    condition: Condition,
    epoch: LeaseEpoch,
    renewed: Instant,
}

impl<'a> Hold<'a> {
    async fn take(source: &'a dyn Engine, condition: Condition) -> Result<Self, MigrateError> {
        let renewed = Instant::now();
        let grant = Self::ask(source, &condition).await?;
        Ok(Self { source, condition, epoch: grant.epoch, renewed })
    }

    /// Renews it when due. Fails when another holder took it.
    async fn keep(&mut self) -> Result<(), MigrateError> {
        let now = Instant::now();
        if now < self.renewed + LEASE_TTL / 3 {
            return Ok(());
        }
        if Self::ask(self.source, &self.condition).await?.epoch != self.epoch {
            return Err(MigrateError::SourceInUse);
        }
        self.renewed = now;
        Ok(())
    }

    async fn ask(source: &dyn Engine, condition: &Condition) -> Result<LeaseGrant, MigrateError> {
        let asked = source.lease(WORKERS, HOLDER, LEASE_TTL, Some(condition)).await;
        asked.map_err(|error| MigrateError::Source(error.into()))?.ok_or(MigrateError::SourceInUse)
    }
}

/// Marks the target as an unfinished copy. Returns the condition that this migration marked it
/// last, and whether an earlier one is resumed.
async fn set_mark(
    target: &dyn Engine,
    source: &Cluster,
) -> Result<(Condition, bool), MigrateError> {
    let ours = MigrationMark { cluster: source.id, incarnation: source.incarnation };
    let there = existing_mark(target).await?;
    let condition = match &there {
        Some((found, _)) if *found != ours => {
            let MigrationMark { cluster, incarnation } = *found;
            return Err(MigrateError::OtherCopy { cluster, incarnation });
        }
        // Written again, so that a migration still running notices.
        Some((_, version)) => Condition::Version(keys::MIGRATION, *version),
        None => Condition::PrefixEmpty(Bytes::new()),
    };
    let commit = Commit {
        conditions: vec![condition],
        writes: vec![Write::Put(keys::MIGRATION, ours.encode(Level::FIRST).into())],
    };
    match commit_all(target, vec![commit]).await? {
        Some(version) => Ok((Condition::Version(keys::MIGRATION, version), there.is_some())),
        None => Err(MigrateError::TargetTaken),
    }
}

/// Returns the mark of the target with its version. Fails when the target holds data without a
/// mark.
async fn existing_mark(
    target: &dyn Engine,
) -> Result<Option<(MigrationMark, Revision)>, MigrateError> {
    let read = async {
        let snapshot = target.snapshot().await?;
        if let Some(found) = snapshot.get(&keys::MIGRATION).await? {
            let mark = MigrationMark::decode(&keys::MIGRATION, &found.value, Level::NEWEST)?;
            return Ok(Ok(Some((mark, found.version))));
        }
        let what = match snapshot.get(&keys::CLUSTER).await? {
            Some(found) => {
                let Cluster { id, incarnation, .. } =
                    Cluster::decode(&keys::CLUSTER, &found.value, Level::NEWEST)?;
                format!("cluster {id}, incarnation {incarnation}")
            }
            None => match snapshot.range(&[], &[], 1).await?.first() {
                Some((key, _)) => format!("the key {}", keys::show(key)),
                None => return Ok(Ok(None)),
            },
        };
        Ok(Err(MigrateError::TargetNotEmpty { what }))
    };
    read.await.map_err(MigrateError::Target)?
}

/// Commits the removal of the mark, which makes the target usable.
async fn remove_mark(target: &dyn Engine, mark: &Condition) -> Result<(), MigrateError> {
    let commit =
        Commit { conditions: vec![mark.clone()], writes: vec![Write::Delete(keys::MIGRATION)] };
    commit_all(target, vec![commit]).await?.map(drop).ok_or(MigrateError::TargetTaken)
}

/// Writes a page of differences in as many commits as needed.
async fn write(
    target: &dyn Engine,
    mark: &Condition,
    differences: Vec<Write>,
) -> Result<(), MigrateError> {
    let empty = || Commit { conditions: vec![mark.clone()], writes: Vec::new() };
    let mut commits = Vec::new();
    let mut last = empty();
    let mut bytes = last.bytes();
    for write in differences {
        let weight = write.bytes();
        if last.writes.len() == WRITES_MAX || bytes + weight > COMMIT_BYTES_MAX {
            commits.push(std::mem::replace(&mut last, empty()));
            bytes = last.bytes();
        }
        bytes += weight;
        last.writes.push(write);
    }
    if !last.writes.is_empty() {
        commits.push(last);
    }
    if commits.is_empty() {
        return Ok(());
    }
    commit_all(target, commits).await?.map(drop).ok_or(MigrateError::TargetTaken)
}

/// Commits; `None` when a commit was refused, which only the mark can cause.
async fn commit_all(
    target: &dyn Engine,
    commits: Vec<Commit>,
) -> Result<Option<Revision>, MigrateError> {
    let outcomes = target.commit_batch(commits).await;
    let outcomes = outcomes.map_err(|error| MigrateError::Target(error.into()))?;
    let revision = |outcome| match outcome {
        Outcome::Committed(revision) => Some(revision),
        Outcome::Conflict { .. } => None,
    };
    let revisions: Option<Vec<Revision>> = outcomes.into_iter().map(revision).collect();
    Ok(revisions.and_then(|revisions| revisions.last().copied()))
}

#[cfg(test)]
mod tests;

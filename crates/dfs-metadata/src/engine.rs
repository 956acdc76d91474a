//! The contract of a metadata engine.
//!
//! Engines are optimistic, as any suitable store can be: read at a snapshot, then commit writes on
//! conditions. There are no interactive transactions.

mod commit;
mod counter;
pub mod lease;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::{ErrorCode, Revision};

use lease::LeaseGrant;

pub use commit::{
    COMMIT_BYTES_MAX, COMMIT_KEYS_MAX, Commit, Condition, Effects, KEY_LEN_MAX, VALUE_LEN_MAX,
    Write,
};
pub use counter::{decode_counter, encode_counter};

/// A value and the revision of the commit that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Revision of the commit that wrote it.
    pub version: Revision,
}

/// The outcome of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Durable at this revision. Without writes, a revision at which the conditions held.
    Committed(Revision),
    /// A condition did not hold; nothing was changed.
    Conflict {
        /// Index of the first condition that did not hold. Writes count after the conditions: a
        /// refused [`Write::Add`] has the number of conditions plus its own index.
        condition: usize,
    },
}

/// A change reported by a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// New value; `None` when it was removed.
    pub value: Option<Bytes>,
    /// Revision of the commit.
    pub revision: Revision,
}

/// A failure of an engine. A conflict is not an error but an [`Outcome`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The store is unreachable or overloaded; nothing was changed.
    #[error("the metadata engine is unavailable: {0}")]
    Unavailable(String),
    /// The commit may or may not have taken effect.
    #[error("the outcome of a commit is unknown: {0}")]
    OutcomeUnknown(String),
    /// The store is full; reads still work.
    #[error("the metadata engine has no space left: {0}")]
    NoSpace(String),
    /// The store is damaged.
    #[error("the metadata store is damaged: {0}")]
    Damaged(String),
    /// The store was written by a newer release.
    #[error("the metadata store has format {found}, but this version reads up to {supported}")]
    NewerFormat {
        /// Format of the store.
        found: u32,
        /// Newest format that this release reads.
        supported: u32,
    },
    /// The snapshot or watch position is older than what the store keeps.
    #[error("revision {0} is no longer kept by the metadata engine")]
    Compacted(Revision),
    /// A commit, key or value exceeds its limit: a defect of the caller.
    #[error("a commit exceeds the limits of the engine: {0}")]
    TooLarge(String),
    /// The store denies access to this process, or was never set up for it.
    #[error("the metadata engine refused access: {0}")]
    Refused(String),
    /// Another process has the store open.
    #[error("the metadata store is in use: {0}")]
    InUse(String),
}

impl EngineError {
    /// Returns the code of a process that cannot start because of it. For the code of a call see
    /// [`crate::Error::code`]: its caller can do nothing about a store.
    pub fn start_code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Refused(_) => ErrorCode::PermissionDenied,
            Self::OutcomeUnknown(_) => ErrorCode::OutcomeUnknown,
            Self::NoSpace(_) => ErrorCode::NoSpace,
            Self::Damaged(_) => ErrorCode::Corrupt,
            Self::NewerFormat { .. } => ErrorCode::UnsupportedVersion,
            Self::InUse(_) => ErrorCode::Busy,
            Self::Compacted(_) | Self::TooLarge(_) => ErrorCode::Internal,
        }
    }
}

/// A consistent view of everything at one revision. Drop it soon: the store keeps what it sees.
#[async_trait]
pub trait Snapshot: Send + Sync {
    /// Returns its revision.
    fn revision(&self) -> Revision;

    /// Reads one key.
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError>;

    /// Reads several keys; the result has the order of the keys.
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, EngineError>;

    /// Reads at most `limit` keys that start with `prefix` and are greater than `after` (a whole
    /// key, or empty for the start), in key order.
    async fn range(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, EngineError>;

    /// Reads the greatest key that starts with `prefix` and is less than `key`. Takes one read,
    /// regardless of the number of keys under the prefix. `key` need neither exist nor start with
    /// the prefix.
    async fn last_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Versioned)>, EngineError>;
}

/// Returns the first key after all that start with `prefix`; `None` when there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Returns the bounds, start and end, of the keys that start with `prefix` and are less than `key`;
/// `None` when there can be none.
pub fn bounds_before(prefix: &[u8], key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let end = match prefix_end(prefix) {
        Some(end) if *end < *key => end,
        _ => key.to_vec(),
    };
    (*prefix < *end).then(|| (prefix.to_vec(), end))
}

/// Changes under a prefix in revision order, each exactly once. Those of one commit may come in any
/// order; of several changes of one key only the last is reported, and the removal of a missing key
/// not at all. Bounded: a reader that falls too far behind gets [`EngineError::Compacted`].
#[async_trait]
pub trait Watch: Send {
    /// Returns the next change. Cancel-safe: a change not returned is returned by the next call.
    async fn next(&mut self) -> Result<Change, EngineError>;
}

/// A transactional, ordered key-value store.
///
/// Implementations must pass `dfs_metadata::conformance`.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Takes a snapshot that sees every commit acknowledged before, through any coordinator.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError>;

    /// Applies independent commits in the given order, in as few durable store commits as possible.
    /// Each is judged on its own, on the state that the earlier ones left, so that a conflict of
    /// one never fails another. On `Ok`, every `Committed` one is durable. On an error, all commits
    /// of the batch share its fate.
    async fn commit_batch(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError>;

    /// Watches changes under a prefix with revisions greater than `from`.
    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Box<dyn Watch>, EngineError>;

    /// Takes or renews the lease `name` for `holder`. `None` while another holds it, or when
    /// `condition` does not hold where it would be taken. A holder that lets `ttl` pass without
    /// renewing may lose it. Time only decides who may take over; correctness depends on the fence
    /// alone.
    async fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError>;
}

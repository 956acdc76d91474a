//! The metadata of a simulated coordinator: every commit that changes chunk records is checked, and the
//! machine may crash at one of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dfs_chunkstore::sim::SimFs;
use dfs_metadata::Committer;
use dfs_metadata::conformance::ForwardingEngine;
use dfs_metadata::engine::{Commit, Engine, EngineError, Outcome};
use dfs_metadata::namespace::{self, Namespace};
use dfs_types::{ChunkId, Level, Scope, SeededRandom};
use tokio::sync::OnceCell;

use super::invariants::records_advance::Records;
use super::time::SimClock;

/// Prefix of the keys of chunk records.
const CHUNKS: &[u8] = b"k/";

/// A crash at a commit of the background work that changes a chunk record: a replica that was built is
/// counted, one that was moved is doomed, or one that was deleted is forgotten.
#[derive(Debug, Default)]
pub(super) struct MoveCrash {
    /// Number of such commits before the fatal one, counted from 1; 0 for no crash.
    commits_left: AtomicU64,
    /// True to crash after the commit is durable, rather than before.
    is_after: AtomicBool,
    has_struck: AtomicBool,
}

impl MoveCrash {
    /// Makes the disks fail at one of the next such commits.
    pub(super) fn arm(&self, commits: u64, is_after: bool) {
        self.is_after.store(is_after, Ordering::Relaxed);
        self.commits_left.store(commits, Ordering::Relaxed);
    }

    /// Returns whether the disks have failed since the last call.
    pub(super) fn take_struck(&self) -> bool {
        self.has_struck.swap(false, Ordering::Relaxed)
    }

    fn strikes(&self) -> bool {
        let left = self.commits_left.load(Ordering::Relaxed);
        self.commits_left.store(left.saturating_sub(1), Ordering::Relaxed);
        left == 1
    }
}

/// What is shared by the lives of a coordinator.
#[derive(Debug, Default)]
pub(super) struct Observed {
    records: Mutex<Records>,
    problem: Mutex<Option<String>>,
    pub(super) crash: MoveCrash,
}

impl Observed {
    /// Forgets all records, as the metadata is replaced.
    pub(super) fn forget(&self) {
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = Records::default();
    }

    /// Returns what was violated, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An engine whose commits are observed.
pub(super) struct ObservedEngine {
    inner: Arc<dyn Engine>,
    disks: SimFs,
    observed: Arc<Observed>,
    namespace: OnceCell<Namespace>,
}

impl ObservedEngine {
    pub(super) fn new(inner: Arc<dyn Engine>, disks: SimFs, observed: Arc<Observed>) -> Self {
        Self { inner, disks, observed, namespace: OnceCell::new() }
    }

    /// Checks the records that a commit has changed. What cannot be read any more violates nothing.
    async fn check(&self, chunks: &[ChunkId]) -> Option<()> {
        let open = async || {
            let (committer, _) = Committer::new(self.inner.clone(), std::future::pending());
            let (clock, random) = (Arc::new(SimClock::default()), Arc::new(SeededRandom::new(0)));
            let engine = self.inner.clone();
            let components = namespace::Components { engine, committer, clock, random };
            let level = Level::REHEARSAL;
            let options = namespace::Options { level, ..namespace::Options::default() };
            Namespace::open(components, options, None).await
        };
        let namespace = self.namespace.get_or_try_init(open).await.ok()?;
        let found = namespace.chunks(Scope::internal(), chunks).await.ok()?;
        let mut records = self.observed.records.lock().unwrap_or_else(PoisonError::into_inner);
        for (chunk, record) in chunks.iter().zip(found) {
            if let Err(problem) = records.check(*chunk, record) {
                let mut found =
                    self.observed.problem.lock().unwrap_or_else(PoisonError::into_inner);
                found.get_or_insert(problem);
            }
        }
        Some(())
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, EngineError> {
        let keys = commit.writes.iter().filter_map(|write| write.key().strip_prefix(CHUNKS));
        let chunks: Vec<_> = keys.filter_map(ChunkId::from_slice).collect();
        let is_fenced =
            commit.conditions.iter().any(|condition| condition.key().starts_with(b"s/lease/"));
        let strikes = !chunks.is_empty() && is_fenced && self.observed.crash.strikes();
        let fail = || {
            self.observed.crash.has_struck.store(true, Ordering::Relaxed);
            self.disks.stop_at(self.disks.operations());
        };
        let is_after = self.observed.crash.is_after.load(Ordering::Relaxed);
        if strikes && !is_after {
            fail();
        }
        let outcomes = self.inner.commit_batch(vec![commit]).await;
        if !chunks.is_empty() && outcomes.is_ok() {
            self.check(&chunks).await;
        }
        if strikes && is_after {
            fail();
        }
        let outcome = outcomes?.pop();
        outcome.ok_or_else(|| EngineError::Unavailable("no outcome".to_owned()))
    }
}

#[async_trait]
impl ForwardingEngine for ObservedEngine {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    /// Commits one after the other, so that no state of a record is missed.
    async fn forward_commits(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        let changes_chunk =
            |commit: &Commit| commit.writes.iter().any(|write| write.key().starts_with(CHUNKS));
        if !commits.iter().any(changes_chunk) {
            return self.inner.commit_batch(commits).await;
        }
        let mut outcomes = Vec::with_capacity(commits.len());
        for commit in commits {
            outcomes.push(self.commit(commit).await?);
        }
        Ok(outcomes)
    }
}

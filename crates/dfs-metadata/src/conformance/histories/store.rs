//! A store that lets others go first by chance, and can be told to forget conditions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::{
    Commit, Condition, Engine, EngineError, LeaseGrant, Outcome, Snapshot, Versioned, Watch,
};
use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::{Random, Revision, SeededRandom};

/// Conditions that the store takes no notice of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lapse {
    None,
    Versions,
    Absences,
    Emptiness,
}

impl Lapse {
    fn forgets(self, condition: &Condition) -> bool {
        match condition {
            Condition::Version(..) => self == Self::Versions,
            Condition::Absent(_) => self == Self::Absences,
            Condition::PrefixEmpty(_) => self == Self::Emptiness,
        }
    }
}

/// An engine with pauses before and after whatever it does.
pub(super) struct PausingEngine {
    pub(super) inner: Arc<dyn Engine>,
    pub(super) random: Arc<SeededRandom>,
    pub(super) lapse: Lapse,
    /// Commits that were refused.
    pub(super) conflicts: Arc<AtomicU64>,
}

/// Lets the other tasks go on a few times, or not at all.
pub(super) async fn pause(random: &SeededRandom) {
    for _ in 0..random.below(4) {
        tokio::task::yield_now().await;
    }
}

#[async_trait]
impl Engine for PausingEngine {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        pause(&self.random).await;
        let inner = self.inner.snapshot().await?;
        pause(&self.random).await;
        Ok(Box::new(PausingSnapshot { inner, random: self.random.clone() }))
    }

    async fn commit_batch(&self, mut commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        pause(&self.random).await;
        for commit in &mut commits {
            commit.conditions.retain(|condition| !self.lapse.forgets(condition));
        }
        let outcomes = self.inner.commit_batch(commits).await?;
        let refused = outcomes.iter().filter(|found| matches!(found, Outcome::Conflict { .. }));
        self.conflicts.fetch_add(refused.count() as u64, Ordering::Relaxed);
        pause(&self.random).await;
        Ok(outcomes)
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Box<dyn Watch>, EngineError> {
        self.inner.watch(prefix, from).await
    }

    async fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        self.inner.lease(name, holder, ttl).await
    }
}

struct PausingSnapshot {
    inner: Box<dyn Snapshot>,
    random: Arc<SeededRandom>,
}

#[async_trait]
impl Snapshot for PausingSnapshot {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        pause(&self.random).await;
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, EngineError> {
        pause(&self.random).await;
        self.inner.get_many(keys).await
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, EngineError> {
        pause(&self.random).await;
        self.inner.range(prefix, after, limit).await
    }

    async fn last_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Versioned)>, EngineError> {
        pause(&self.random).await;
        self.inner.last_before(prefix, key).await
    }
}

//! A store that randomly lets other tasks run first, and can be made to skip conditions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use dfs_types::{Random, SeededRandom};

use crate::conformance::{ForwardingEngine, ForwardingSnapshot, Read};
use crate::engine::{Commit, Condition, Engine, EngineError, Outcome, Snapshot};

/// Conditions that the store ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lapse {
    None,
    Versions,
    Absences,
    Emptiness,
}

impl Lapse {
    fn ignores(self, condition: &Condition) -> bool {
        match condition {
            Condition::Version(..) => self == Self::Versions,
            Condition::Absent(_) => self == Self::Absences,
            Condition::PrefixEmpty(_) => self == Self::Emptiness,
        }
    }
}

/// An engine with pauses before and after each call.
pub(super) struct PausingEngine {
    pub(super) inner: Arc<dyn Engine>,
    pub(super) random: Arc<SeededRandom>,
    pub(super) lapse: Lapse,
    /// Number of refused commits.
    pub(super) conflicts: Arc<AtomicU64>,
}

/// Yields to other tasks a random number of times, possibly zero.
pub(super) async fn pause(random: &SeededRandom) {
    for _ in 0..random.below(4) {
        tokio::task::yield_now().await;
    }
}

#[async_trait]
impl ForwardingEngine for PausingEngine {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    async fn forward_snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        pause(&self.random).await;
        let inner = self.inner.snapshot().await?;
        pause(&self.random).await;
        Ok(Box::new(PausingSnapshot { inner, random: self.random.clone() }))
    }

    async fn forward_commits(&self, mut commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        pause(&self.random).await;
        for commit in &mut commits {
            commit.conditions.retain(|condition| !self.lapse.ignores(condition));
        }
        let outcomes = self.inner.commit_batch(commits).await?;
        let refused = outcomes.iter().filter(|found| matches!(found, Outcome::Conflict { .. }));
        self.conflicts.fetch_add(refused.count() as u64, Ordering::Relaxed);
        pause(&self.random).await;
        Ok(outcomes)
    }
}

struct PausingSnapshot {
    inner: Box<dyn Snapshot>,
    random: Arc<SeededRandom>,
}

#[async_trait]
impl ForwardingSnapshot for PausingSnapshot {
    fn inner(&self) -> &dyn Snapshot {
        &*self.inner
    }

    async fn before_read(&self, _: Read) -> Result<(), EngineError> {
        pause(&self.random).await;
        Ok(())
    }
}

//! Two coordinators that both act as the holder of the worker lease.
//!
//! For a while a holder is granted its old lease whenever it renews it, as if it had been suspended and
//! did not know how late it is. Another coordinator takes the lease over meanwhile. Commits and orders
//! of the former holder must have no effect from then on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::conformance::ForwardingEngine;
use dfs_metadata::engine::lease::{LeaseGrant, WORKERS};
use dfs_metadata::engine::{Condition, Engine, EngineError};

/// The holders of the worker lease, shared by the coordinators of a cluster.
#[derive(Debug, Default)]
pub(super) struct LeaseHolders(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    newest: Option<(String, LeaseGrant)>,
    /// The holder that keeps its grant, and until when.
    stale: Option<(String, LeaseGrant, Duration)>,
    /// Number of takeovers from a stale holder that have not been counted.
    takeovers: u64,
}

impl LeaseHolders {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the present holder keep its grant until this simulated time.
    pub(super) fn make_stale(&self, until: Duration) {
        let mut state = self.lock();
        state.stale = state.newest.clone().map(|(holder, grant)| (holder, grant, until));
    }

    /// Ends the stale grant.
    pub(super) fn settle(&self) {
        self.lock().stale = None;
    }

    /// Returns how often there were two holders since the last call.
    pub(super) fn take_takeovers(&self) -> u64 {
        std::mem::take(&mut self.lock().takeovers)
    }
}

/// An engine that lets a former holder of the worker lease believe that it still holds it.
pub(super) struct StaleLeaseEngine {
    pub(super) inner: Arc<dyn Engine>,
    pub(super) holders: Arc<LeaseHolders>,
}

#[async_trait]
impl ForwardingEngine for StaleLeaseEngine {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    async fn forward_lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        if name != WORKERS {
            return self.inner.lease(name, holder, ttl, condition).await;
        }
        let now = turmoil::sim_elapsed().unwrap_or_default();
        if let Some((stale, grant, until)) = &self.holders.lock().stale
            && now < *until
            && stale == holder
        {
            return Ok(Some(*grant));
        }
        let granted = self.inner.lease(name, holder, ttl, condition).await?;
        if let Some(grant) = granted {
            let mut state = self.holders.lock();
            let is_new = state.newest.as_ref().is_none_or(|(_, newest)| newest.epoch < grant.epoch);
            let is_other = state
                .stale
                .as_ref()
                .is_some_and(|(stale, _, until)| now < *until && stale != holder);
            state.takeovers += u64::from(is_new && is_other);
            state.newest = Some((holder.to_owned(), grant));
        }
        Ok(granted)
    }
}

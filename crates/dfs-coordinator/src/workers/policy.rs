//! Applies changed replication to files that exist: [`Namespace::step_policies`], step by step. What
//! it changes in the records lets [repair](super::repair) build replicas, and [trim](super::trim) doom
//! them.
//!
//! [`Namespace::step_policies`]: dfs_metadata::namespace::Namespace::step_policies

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::PolicyStep;
use dfs_types::{Scope, counted};
use dfs_workers::{Handle, Next, POLICY, Spec, Worker};

use super::WORKER_LEASE;
use crate::Error;
use crate::core::Core;

/// Interval of checking whether anything changed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The worker.
pub(crate) struct ApplyPolicies {
    core: Arc<Core>,
    lease: LeaseGrant,
    handle: Arc<Handle>,
    /// Chunks changed since it was last idle.
    changed: u64,
}

impl ApplyPolicies {
    pub(crate) fn new(core: Arc<Core>, lease: LeaseGrant, handle: Arc<Handle>) -> Self {
        Self { core, lease, handle, changed: 0 }
    }
}

#[async_trait]
impl Worker for ApplyPolicies {
    const SPEC: Spec = POLICY;

    type Error = Error;

    async fn step(&mut self) -> Result<Next, Error> {
        let Self { core, lease, handle, changed } = self;
        let fence = lease.fence(WORKER_LEASE);
        let step = core.namespace.step_policies(Scope::internal(), Some(&fence)).await;
        match step.map_err(Error::metadata("applying changed replication"))? {
            PolicyStep::Applied { inodes, chunks } => {
                *changed += chunks as u64;
                handle.add_done(chunks as u64);
                let so_far = counted(*changed, "chunk");
                handle.set_detail(format!("applying changed replication: {so_far} so far"));
                handle.take((inodes + chunks).max(1) as u64).await;
                Ok(Next::Again)
            }
            PolicyStep::Idle => {
                *changed = 0;
                handle.set_detail("every file has the replication that was set");
                Ok(Next::After(CHECK_EVERY))
            }
        }
    }
}

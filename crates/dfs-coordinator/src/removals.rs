//! Removals of nodes in progress.
//!
//! A removal reads all chunks and may take longer than a call. Calls begin it, wait for a moment, and
//! are repeated until its result is known.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_metadata::namespace::{Loss, NeededChunk};
use dfs_proto::Failure;
use dfs_types::{ErrorCode, NodeId, counted};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Time to wait for the result within a call.
const WAIT: Duration = Duration::from_secs(3);
/// Time for which a result is kept for a call that asks again.
const KEPT: Duration = Duration::from_secs(30);

/// Kind of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of an empty node.
    Deregister,
    /// Of a lost node, with a loss that is accepted.
    Forget(Loss),
    /// Only the check whether an empty node can be removed.
    CheckDeregister,
    /// Only the check of what would be lost with a lost node.
    CheckForget,
}

impl Kind {
    /// Returns whether nothing is removed.
    fn is_check(self) -> bool {
        matches!(self, Self::CheckDeregister | Self::CheckForget)
    }
}

/// Why a node was not removed.
#[derive(Debug, Clone)]
pub(crate) enum Obstacle {
    /// A call failed, or a condition does not hold.
    Failure(Failure),
    /// Chunks would be lost whose loss is not accepted.
    Loss(Arc<NodeLoss>),
}

/// Chunks that would be lost with a node.
#[derive(Debug)]
pub(crate) struct NodeLoss {
    pub(crate) loss: Loss,
    /// The first of them.
    pub(crate) listed: Vec<NeededChunk>,
    /// Why more chunks than expected need the node; may be empty.
    pub(crate) note: String,
}

impl From<Failure> for Obstacle {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Obstacle> for Failure {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Failure(failure) => failure,
            Obstacle::Loss(needed) => {
                let chunks = counted(needed.loss.chunks, "chunk");
                Self::new(ErrorCode::NotEmpty, format!("{chunks} would be lost{}", needed.note))
            }
        }
    }
}

/// How far a removal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The node is removed.
    Done,
    /// Number of chunks checked so far.
    Pending(u64),
}

type Outcome = Option<(Result<(), Obstacle>, Instant)>;

#[derive(Debug)]
struct Removal {
    kind: Kind,
    checked: Arc<AtomicU64>,
    outcome: watch::Receiver<Outcome>,
}

/// The removals of a coordinator: one for each node, and one check.
#[derive(Debug, Default)]
pub(crate) struct Removals(Mutex<BTreeMap<(NodeId, bool), Removal>>);

impl Progress {
    /// Returns whether it is pending, and the number of chunks checked so far.
    pub(crate) fn to_wire(self) -> (bool, u64) {
        match self {
            Self::Done => (false, 0),
            Self::Pending(checked) => (true, checked),
        }
    }
}

impl Removals {
    /// Begins a removal with `begin`, unless it is in progress, and waits for a moment. An obstacle
    /// is returned once.
    pub(crate) async fn wait(
        &self,
        node: NodeId,
        kind: Kind,
        begin: impl FnOnce(Arc<AtomicU64>) -> JoinHandle<Result<(), Obstacle>>,
    ) -> Result<Progress, Obstacle> {
        let (checked, awaited) = self.find_or_begin(node, kind, begin)?;
        let mut outcome = awaited.clone();
        let known = timeout(WAIT, outcome.wait_for(Option::is_some)).await;
        let Ok(Ok(known)) = known else {
            return Ok(Progress::Pending(checked.load(Ordering::Relaxed)));
        };
        let result = known.as_ref().map(|(result, _)| result.clone());
        drop(known);
        let mut removals = crate::lock(&self.0);
        let key = (node, kind.is_check());
        // Another call may have taken the result, and begun the next one.
        if removals.get(&key).is_some_and(|removal| removal.outcome.same_channel(&awaited)) {
            removals.remove(&key);
        }
        drop(removals);
        result.unwrap_or(Ok(())).map(|()| Progress::Done)
    }

    fn find_or_begin(
        &self,
        node: NodeId,
        kind: Kind,
        begin: impl FnOnce(Arc<AtomicU64>) -> JoinHandle<Result<(), Obstacle>>,
    ) -> Result<(Arc<AtomicU64>, watch::Receiver<Outcome>), Failure> {
        let now = Instant::now();
        let mut removals = crate::lock(&self.0);
        let is_kept = |removal: &Removal| {
            let outcome = removal.outcome.borrow();
            outcome.as_ref().is_none_or(|(_, at)| now.duration_since(*at) < KEPT)
        };
        removals.retain(|_, removal| is_kept(removal));
        let key = (node, kind.is_check());
        if let Some(removal) = removals.get(&key) {
            if removal.kind != kind {
                let what = if kind.is_check() { "check" } else { "removal" };
                let message = format!("another {what} of node {node} is in progress");
                return Err(Failure::new(ErrorCode::Busy, message).retry_after(WAIT));
            }
            return Ok((removal.checked.clone(), removal.outcome.clone()));
        }
        let checked = Arc::new(AtomicU64::default());
        let (set_outcome, outcome) = watch::channel(None);
        let task = begin(checked.clone());
        tokio::spawn(async move {
            let failed = |error: tokio::task::JoinError| {
                Err(Failure::new(ErrorCode::Internal, error.to_string()).into())
            };
            let result = task.await.unwrap_or_else(failed);
            set_outcome.send_replace(Some((result, Instant::now())));
        });
        removals.insert(key, Removal { kind, checked: checked.clone(), outcome: outcome.clone() });
        Ok((checked, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    #[tokio::test(start_paused = true)]
    async fn check_holds_up_no_removal_and_another_kind_of_it_is_busy() {
        let removals = Removals::default();
        let ends = || tokio::spawn(async { Ok(()) });
        let lasts = |_| tokio::spawn(std::future::pending());
        let checking = removals.wait(NODE, Kind::CheckForget, lasts).await;
        assert_eq!(checking.unwrap(), Progress::Pending(0));
        let other = removals.wait(NODE, Kind::CheckDeregister, |_| ends()).await;
        assert!(
            matches!(&other, Err(Obstacle::Failure(failure)) if failure.code == ErrorCode::Busy)
        );
        let removed = removals.wait(NODE, Kind::Deregister, |_| ends()).await;
        assert_eq!(removed.unwrap(), Progress::Done);
        let checking = removals.wait(NODE, Kind::CheckForget, |_| ends()).await;
        assert_eq!(checking.unwrap(), Progress::Pending(0), "it is still the first one");
    }
}

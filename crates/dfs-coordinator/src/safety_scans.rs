//! Scans of all chunks that check whether nodes can stop, in the background.
//!
//! A yes holds for ten minutes, for the desired states that were read before the scan, and while no
//! other node is away. One that is granted is committed on the condition that no desired state has
//! changed since. A no is repeated only for a few seconds, as repair may have finished meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_metadata::namespace::{Liveness, Namespace, Safety, SafetyScan};
use dfs_proto::Failure;
use dfs_types::{ErrorCode, NodeId, Scope, with_causes};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::failure;

/// Time for which a yes holds.
const YES_VALID: Duration = Duration::from_mins(10);
/// Time for which a no is repeated.
const NO_VALID: Duration = Duration::from_secs(2);
/// Time to wait for a result within a call.
const WAIT: Duration = Duration::from_secs(3);
/// Scans running or remembered at most.
const SCANS_MAX: usize = 8;

/// Result of a check.
pub(crate) enum Check {
    Known(Safety),
    /// Number of chunks checked so far.
    Pending(u64),
}

/// A scan that is running, or its result.
#[derive(Debug, Clone)]
struct Scan {
    question: SafetyScan,
    checked: Arc<AtomicU64>,
    state: watch::Receiver<State>,
}

#[derive(Debug, Clone)]
enum State {
    Running,
    Failed,
    Ended(Box<Safety>, Instant),
}

/// The scans of a coordinator, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct SafetyScans(Mutex<Vec<Scan>>);

impl Scan {
    /// Returns whether it answers a question asked now.
    fn answers(&self, question: &SafetyScan, now: Instant) -> bool {
        self.question.nodes() == question.nodes()
            && self.question.intent() == question.intent()
            && question.away().is_subset(self.question.away())
            && match &*self.state.borrow() {
                State::Running => true,
                State::Failed => false,
                State::Ended(safety, ended) => {
                    let valid = if safety.is_safe() { YES_VALID } else { NO_VALID };
                    now.duration_since(*ended) < valid
                }
            }
    }
}

impl SafetyScans {
    /// Checks with a scan, begun now or earlier, whether `nodes` can stop.
    pub(crate) async fn check(
        &self,
        (namespace, scope): (&Namespace, &Scope),
        nodes: &BTreeSet<NodeId>,
        liveness: &Liveness,
    ) -> Result<Check, Failure> {
        let question = namespace.begin_safety_scan(scope, nodes, liveness).await;
        let question = question.map_err(|error| failure::of(&error))?;
        let mut scan = self.find_or_begin(namespace, question)?;
        let has_ended = |state: &State| !matches!(state, State::Running);
        // Ends early when the task of the scan does.
        let _ = timeout(WAIT, scan.state.wait_for(has_ended)).await;
        match &*scan.state.borrow() {
            State::Running => Ok(Check::Pending(scan.checked.load(Ordering::Relaxed))),
            State::Ended(safety, _) => Ok(Check::Known(Safety::clone(safety))),
            State::Failed => {
                let message = "not all chunks could be checked; try again";
                Err(Failure::new(ErrorCode::Unavailable, message).retry_after(WAIT))
            }
        }
    }

    fn find_or_begin(&self, namespace: &Namespace, question: SafetyScan) -> Result<Scan, Failure> {
        let now = Instant::now();
        let mut scans = crate::lock(&self.0);
        if let Some(scan) = scans.iter().find(|scan| scan.answers(&question, now)) {
            return Ok(scan.clone());
        }
        let is_running = |scan: &Scan| matches!(*scan.state.borrow(), State::Running);
        if scans.len() >= SCANS_MAX {
            let Some(ended) = scans.iter().position(|scan| !is_running(scan)) else {
                let message = "other checks of all chunks are running; try again later";
                return Err(Failure::new(ErrorCode::Busy, message).retry_after(WAIT));
            };
            scans.remove(ended);
        }
        let (set_state, state) = watch::channel(State::Running);
        let checked = Arc::new(AtomicU64::default());
        let scan = Scan { question: question.clone(), checked: checked.clone(), state };
        scans.push(scan.clone());
        drop(scans);
        let namespace = namespace.clone();
        tokio::spawn(async move {
            let mut scan = question;
            let state = loop {
                match namespace.continue_safety_scan(&mut scan).await {
                    Ok(Some(safety)) => break State::Ended(Box::new(safety), Instant::now()),
                    Ok(None) => {}
                    Err(error) => {
                        warn!(error = with_causes(&error), "a check of all chunks failed");
                        break State::Failed;
                    }
                }
                checked.store(scan.checked(), Ordering::Relaxed);
                tokio::task::yield_now().await;
            };
            set_state.send_replace(state);
        });
        Ok(scan)
    }
}

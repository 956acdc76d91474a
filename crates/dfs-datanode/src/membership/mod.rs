//! How the node joins its cluster and stays in it: one task for each coordinator it knows, which is
//! one for each address of the names it was given.
//!
//! ```text
//!  no membership ──Register──► number on all disks ──► membership ──Heartbeat──► ready
//!       ▲                                               │
//!       └──────────────── must_register ────────────────┘
//! ```
//!
//! The node registers once, with the coordinator that answers first; the number holds with all of
//! them, as they share one metadata store.

mod heartbeat;
mod names;
mod register;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_proto::Failure;
use dfs_types::RegistrationNumber;
use tokio::sync::{Mutex, watch};

pub(crate) use names::run;

use crate::node::{Membership, Node};

/// First pause before a coordinator is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause while a coordinator does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Pause after a coordinator refused the node, which takes an administrator to change.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Longest wait for the stream that superseded one to end. Trying again ends that one in turn, so
/// that it is not to be done often.
const SUPERSEDED_PAUSE: Duration = Duration::from_mins(1);

/// Why the node is not in touch with a coordinator.
#[derive(Debug, thiserror::Error)]
enum MembershipError {
    /// It does not answer, or cannot right now.
    #[error("no answer: {0}")]
    Unreachable(#[from] Failure),
    /// It does not want this node, or this node does not want it.
    #[error("{0}")]
    Refused(String),
    /// The number could not be written on the disks.
    #[error("cannot write the registration on the disks: {0}")]
    Disks(#[from] dfs_chunkstore::StoreError),
}

/// What the dealings with all coordinators have in common.
struct Shared {
    node: Arc<Node>,
    /// One registration at a time.
    registering: Mutex<()>,
    /// Raised when a coordinator that answered heartbeats does so no longer.
    ended: watch::Sender<u64>,
}

/// The dealings with one coordinator.
struct Coordinator {
    shared: Arc<Shared>,
    node: Arc<Node>,
    address: String,
    /// A registration that this coordinator does not know.
    refused: Option<RegistrationNumber>,
    /// It has answered a heartbeat of this process, thus is of the node's cluster.
    has_accepted: bool,
    /// It answers heartbeats now.
    is_in_touch: Arc<AtomicBool>,
}

impl Coordinator {
    fn new(shared: &Arc<Shared>, address: String) -> Self {
        Self {
            shared: Arc::clone(shared),
            node: Arc::clone(&shared.node),
            address,
            refused: None,
            has_accepted: false,
            is_in_touch: Arc::default(),
        }
    }

    async fn attend(mut self) {
        let mut pause = PAUSE_MIN;
        let mut said = String::new();
        loop {
            let mut ended = self.shared.ended.subscribe();
            let met = self.run_once().await;
            let was_in_touch = self.is_in_touch.swap(false, Ordering::Relaxed);
            if was_in_touch {
                self.has_accepted = true;
                pause = PAUSE_MIN;
                said.clear();
            }
            if let Ok(heartbeat::End::Superseded) = met {
                tracing::info!(
                    coordinator = self.address, node = %self.node.id,
                    "this coordinator is reached by another of its addresses"
                );
                // The sender lives as long as this does.
                drop(tokio::time::timeout(SUPERSEDED_PAUSE, ended.changed()).await);
            } else if was_in_touch {
                self.shared.ended.send_modify(|ended| *ended += 1);
            }
            let error = met.err();
            if let Some(error) = &error {
                self.report(error, &mut said);
            }
            let is_refusal = matches!(error, Some(MembershipError::Refused(_)));
            let longest = if is_refusal { REFUSED_PAUSE } else { pause };
            // Half of it by chance, so that a cluster does not come back in step.
            let jitter = self.node.random.below(1 + longest.as_millis() as u64 / 2);
            tokio::time::sleep(longest / 2 + Duration::from_millis(jitter)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Sees to it that the node is registered, and sends heartbeats until they end.
    async fn run_once(&mut self) -> Result<heartbeat::End, MembershipError> {
        let membership = self.membership().await?;
        let end = heartbeat::run(&self.node, &self.address, &membership, &self.is_in_touch).await?;
        if end == heartbeat::End::MustRegister {
            self.refused = Some(membership.registration);
        }
        Ok(end)
    }

    async fn membership(&self) -> Result<Membership, MembershipError> {
        let _only = self.shared.registering.lock().await;
        match self.node.membership() {
            Some(membership) if Some(membership.registration) != self.refused => Ok(membership),
            _ => register::run(&self.node, &self.address).await,
        }
    }

    fn report(&self, error: &MembershipError, said: &mut String) {
        let text = error.to_string();
        if let MembershipError::Refused(reason) = error
            && (self.has_accepted || self.node.membership().is_none())
        {
            self.node.lose_standing(reason);
        } else if self.node.membership().is_none() {
            self.node.readiness.not_ready(format!("coordinator {}: {text}", self.address));
        }
        if *said != text {
            tracing::warn!(coordinator = self.address, node = %self.node.id, "{text}");
            *said = text;
        }
    }
}

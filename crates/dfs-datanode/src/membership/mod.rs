//! Joins the cluster and stays in it: one task for each known coordinator, which is one for each
//! address of the configured names.
//!
//! ```text
//!  no membership ──Register──► number on all disks ──► membership ──Heartbeat──► ready
//!       ▲                                               │
//!       └──────────────── must_register ────────────────┘
//! ```
//!
//! The node registers once, with the first coordinator that replies; the registration is valid for
//! all of them, as they share one metadata store.

mod coordinator_addresses;
mod heartbeat;
mod register;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_proto::Failure;
use dfs_types::RegistrationNumber;
use tokio::sync::{Mutex, watch};

pub(crate) use coordinator_addresses::run;

use crate::node::{Membership, Node};

/// First pause before a coordinator is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Maximum pause while a coordinator does not reply.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Pause after a refusal, which only an administrator can resolve.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// Maximum wait for the superseding stream to end. A retry supersedes that one in turn, so it must
/// be rare.
const SUPERSEDED_PAUSE: Duration = Duration::from_mins(1);

/// Why the node has no contact with a coordinator.
#[derive(Debug, thiserror::Error)]
enum MembershipError {
    /// The coordinator does not reply, or is temporarily unable to.
    #[error("no usable reply: {0}")]
    Unreachable(#[from] Failure),
    /// The coordinator refuses this node, or this node refuses the coordinator.
    #[error("{0}")]
    Refused(String),
    /// The registration could not be written to the disks.
    #[error("cannot write the registration on the disks: {0}")]
    Disks(#[from] dfs_chunkstore::StoreError),
}

/// State shared by the tasks of all coordinators.
struct Shared {
    node: Arc<Node>,
    /// Held during a registration: one at a time.
    registering: Mutex<()>,
    /// Incremented when a coordinator stops replying to heartbeats.
    ended: watch::Sender<u64>,
}

/// The task of one coordinator.
struct Coordinator {
    shared: Arc<Shared>,
    node: Arc<Node>,
    address: String,
    /// A registration that this coordinator does not know.
    refused: Option<RegistrationNumber>,
    /// True if it has replied to a heartbeat of this process, so that it belongs to the node's
    /// cluster.
    has_accepted: bool,
    /// True while it replies to heartbeats.
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
                    "this coordinator is connected through another of its addresses"
                );
                // The sender lives as long as this task.
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
            // Half of it is random, so that the nodes of a cluster do not return in lockstep.
            let jitter = self.node.random.below(1 + longest.as_millis() as u64 / 2);
            tokio::time::sleep(longest / 2 + Duration::from_millis(jitter)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Ensures that the node is registered, and sends heartbeats until they end.
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
            self.node.end_membership(reason);
        } else if self.node.membership().is_none() {
            self.node.readiness.not_ready(format!("coordinator {}: {text}", self.address));
        }
        if *said != text {
            tracing::warn!(coordinator = self.address, node = %self.node.id, "{text}");
            *said = text;
        }
    }
}

//! How the node joins its cluster and stays in it: one task for each coordinator it knows.
//!
//! ```text
//!  no standing ──Register──► number on all disks ──► standing ──Heartbeat──► ready
//!       ▲                                               │
//!       └──────────────── must_register ────────────────┘
//! ```
//!
//! The node registers once, with the coordinator that answers first; the number holds with all of
//! them, as they share one metadata store.

mod heartbeat;
mod register;

use std::sync::Arc;
use std::time::Duration;

use dfs_proto::Failure;
use dfs_types::RegistrationNumber;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::node::{Node, Standing};

/// First pause before a coordinator is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause while a coordinator does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Pause after a coordinator refused the node, which takes an administrator to change.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// Why the node is not in touch with a coordinator.
#[derive(Debug, thiserror::Error)]
enum Trouble {
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

/// Registers and sends heartbeats, for ever. Dropping the future ends it.
pub(crate) async fn run(node: Arc<Node>) {
    let registering = Arc::new(Mutex::new(()));
    let mut tasks = JoinSet::new();
    for address in &node.settings.coordinators {
        let coordinator = Coordinator {
            node: Arc::clone(&node),
            address: address.clone(),
            registering: Arc::clone(&registering),
            refused: None,
            has_accepted: false,
        };
        tasks.spawn(coordinator.attend());
    }
    while tasks.join_next().await.is_some() {}
}

/// The dealings with one coordinator.
struct Coordinator {
    node: Arc<Node>,
    address: String,
    /// One registration at a time.
    registering: Arc<Mutex<()>>,
    /// A registration that this coordinator does not know.
    refused: Option<RegistrationNumber>,
    /// It has answered a heartbeat of this process, thus is of the node's cluster.
    has_accepted: bool,
}

impl Coordinator {
    async fn attend(mut self) {
        let mut pause = PAUSE_MIN;
        let mut said = String::new();
        loop {
            let mut was_accepted = false;
            let trouble = self.meet(&mut was_accepted).await.err();
            if was_accepted {
                self.has_accepted = true;
                pause = PAUSE_MIN;
                said.clear();
            }
            if let Some(trouble) = &trouble {
                self.report(trouble, &mut said);
            }
            let is_refusal = matches!(trouble, Some(Trouble::Refused(_)));
            let longest = if is_refusal { REFUSED_PAUSE } else { pause };
            // Half of it by chance, so that a cluster does not come back in step.
            let jitter = self.node.random.below(1 + longest.as_millis() as u64 / 2);
            tokio::time::sleep(longest / 2 + Duration::from_millis(jitter)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Sees to it that the node is registered, and sends heartbeats until they end.
    async fn meet(&mut self, was_accepted: &mut bool) -> Result<(), Trouble> {
        let standing = self.standing().await?;
        let end = heartbeat::run(&self.node, &self.address, &standing, was_accepted).await?;
        if end == heartbeat::End::MustRegister {
            self.refused = Some(standing.registration);
        }
        Ok(())
    }

    async fn standing(&self) -> Result<Standing, Trouble> {
        let _only = self.registering.lock().await;
        match self.node.standing() {
            Some(standing) if Some(standing.registration) != self.refused => Ok(standing),
            _ => register::run(&self.node, &self.address).await,
        }
    }

    fn report(&self, trouble: &Trouble, said: &mut String) {
        let text = trouble.to_string();
        if let Trouble::Refused(reason) = trouble
            && (self.has_accepted || self.node.standing().is_none())
        {
            self.node.lose_standing(reason);
        } else if self.node.standing().is_none() {
            self.node.readiness.not_ready(format!("coordinator {}: {text}", self.address));
        }
        if *said != text {
            tracing::warn!(coordinator = self.address, node = %self.node.id, "{text}");
            *said = text;
        }
    }
}

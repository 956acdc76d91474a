//! What is known of a cluster when it is examined.

use std::fmt;

use dfs_client::{ClusterStatus, GcStatus, MovePlan, NodeStatus, UpgradeStatus, WorkerStatus};
use dfs_types::{ClusterId, DiskId, NodeId};

/// What was asked for, or why it is not known.
pub(crate) type Checked<T> = Result<T, String>;

/// A coordinator that was asked.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    /// Empty if none was chosen in particular.
    pub(crate) address: String,
    /// Its reply, or why there was none.
    pub(crate) reply: Checked<Reply>,
}

/// The reply of a coordinator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) cluster: ClusterId,
    /// How far its clock is ahead of the one here, in milliseconds.
    pub(crate) ahead_ms: i64,
}

/// What is being emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Emptying {
    pub(crate) node: NodeId,
    pub(crate) disk: Option<DiskId>,
}

/// What is known of a cluster that replies.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The coordinators that were named.
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) status: ClusterStatus,
    pub(crate) gc: Checked<GcStatus>,
    pub(crate) upgrade: Checked<UpgradeStatus>,
    /// What has to be moved from draining nodes and retiring disks.
    pub(crate) moves: Vec<(Emptying, Checked<MovePlan>)>,
}

impl Facts {
    pub(crate) fn worker(&self, name: &str) -> Option<&WorkerStatus> {
        self.status.workers.iter().find(|worker| worker.name == name)
    }

    /// Returns whether chunks are known to lack replicas.
    pub(crate) fn has_work_for_repair(&self) -> bool {
        let counts = self.status.replication.as_ref();
        counts.is_some_and(|it| it.under_replicated + it.bad_replicas > 0)
    }
}

impl fmt::Display for Emptying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.disk {
            Some(disk) => write!(f, "disk {disk} of node {}", self.node),
            None => write!(f, "node {}", self.node),
        }
    }
}

/// Names a node.
pub(crate) fn name(node: &NodeStatus) -> String {
    format!("node {} at {}", node.id, node.address)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use dfs_client::{DiskStatus, ReplicationStatus, WorkerActivity};
    use dfs_types::{DiskScrub, Incarnation, Level, NodeState, Timestamp, WholePass};

    use super::*;

    pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// Returns an active node with a disk of the same number.
    pub(crate) fn node(id: u128) -> NodeStatus {
        let mut node = NodeStatus::new(NodeId(id), format!("n{id}:7080"), NodeState::Active);
        let mut disk = DiskStatus::new(DiskId(id), 1 << 40);
        let last = Some(WholePass { end: NOW, bytes: 0, errors: 0 });
        let every = Some(Duration::from_hours(336));
        disk.scrub = Some(DiskScrub { last, every, ..DiskScrub::default() });
        node.disks = vec![disk];
        node.last_heard = Some(Duration::from_secs(1));
        node.version = "1".to_owned();
        node
    }

    /// Returns a cluster in which nothing is wrong.
    pub(crate) fn healthy() -> Facts {
        let mut status = ClusterStatus::new(ClusterId(1));
        status.nodes = (1..=4).map(node).collect();
        status.version = "1".to_owned();
        status.replication = Some(ReplicationStatus::default());
        status.reconciliation.last_whole = Some(Duration::from_hours(3));
        status.worker_lease_holder = "c:7070".to_owned();
        status.now = NOW;
        status.workers = ["repair", "drain", "reconcile", "scrub"].map(WorkerStatus::new).to_vec();
        for worker in &mut status.workers {
            worker.activity = WorkerActivity::Running;
        }
        let reply = Ok(Reply { cluster: status.cluster, ahead_ms: 0 });
        let coordinator = Coordinator { address: "c:7070".to_owned(), reply };
        Facts {
            coordinators: vec![coordinator],
            status,
            gc: Ok(GcStatus::new(Incarnation(1))),
            upgrade: Ok(UpgradeStatus::new(Level(1))),
            moves: Vec::new(),
        }
    }

    /// Returns the counts of chunks, to be changed.
    pub(crate) fn counts(facts: &mut Facts) -> &mut ReplicationStatus {
        facts.status.replication.as_mut().unwrap()
    }
}

//! Datanodes that were refused because their disks are older copies, and keep asking.
//!
//! Soft state, like heartbeats: a refused node registers again every few seconds, with each
//! coordinator.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use dfs_types::{NodeId, RegistrationNumber};
use tokio::time::Instant;

use crate::node_liveness::DiskReport;

/// Time after which a process that did not ask again is gone.
const ASKED_WITHIN: Duration = Duration::from_secs(45);
/// Maximum number of refused nodes that are remembered.
const NODES_MAX: usize = 64;
/// Maximum number of processes that are remembered for each node.
const APPLICANTS_MAX: usize = 4;

/// A process that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Applicant {
    pub(crate) address: String,
    pub(crate) host: String,
    /// Registration on its disks.
    pub(crate) registration: RegistrationNumber,
    pub(crate) disks: Vec<DiskReport>,
}

/// The processes of a node by address, each with the time at which it asked last.
type Applicants = BTreeMap<String, (Applicant, Instant)>;

/// The refused processes of all nodes.
#[derive(Debug, Default)]
pub(crate) struct RefusedNodes(Mutex<BTreeMap<NodeId, Applicants>>);

impl RefusedNodes {
    /// Notes that a process was refused just now. Beyond the bounds, it is not remembered.
    pub(crate) fn add(&self, node: NodeId, applicant: Applicant, now: Instant) {
        let mut nodes = crate::lock(&self.0);
        for applicants in nodes.values_mut() {
            applicants.retain(|_, (_, at)| is_recent(*at, now));
        }
        nodes.retain(|_, applicants| !applicants.is_empty());
        if nodes.len() >= NODES_MAX && !nodes.contains_key(&node) {
            return;
        }
        let applicants = nodes.entry(node).or_default();
        if applicants.len() < APPLICANTS_MAX || applicants.contains_key(&applicant.address) {
            applicants.insert(applicant.address.clone(), (applicant, now));
        }
    }

    /// Returns the processes that ask to join as this node.
    pub(crate) fn of(&self, node: NodeId, now: Instant) -> Vec<Applicant> {
        let nodes = crate::lock(&self.0);
        let applicants = nodes.get(&node).into_iter().flat_map(BTreeMap::values);
        let recent = applicants.filter(|(_, at)| is_recent(*at, now));
        recent.map(|(applicant, _)| applicant.clone()).collect()
    }

    /// Returns the nodes as which processes ask to join, with the addresses of these.
    pub(crate) fn all(&self, now: Instant) -> Vec<(NodeId, String)> {
        let nodes = crate::lock(&self.0);
        let of = |(node, applicants): (&NodeId, &Applicants)| {
            let recent = applicants.iter().filter(|(_, (_, at))| is_recent(*at, now));
            recent.map(|(address, _)| (*node, address.clone())).collect::<Vec<_>>()
        };
        nodes.iter().flat_map(of).collect()
    }

    /// Forgets a node that has joined.
    pub(crate) fn remove(&self, node: NodeId) {
        crate::lock(&self.0).remove(&node);
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < ASKED_WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applicant(address: &str) -> Applicant {
        Applicant {
            address: address.to_owned(),
            host: String::new(),
            registration: RegistrationNumber(1),
            disks: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refused_processes_are_remembered_while_they_ask_within_bounds() {
        let refused = RefusedNodes::default();
        let start = Instant::now();
        for at in 0..10 {
            refused.add(NodeId(1), applicant(&format!("a:{at}")), start);
        }
        assert_eq!(refused.of(NodeId(1), start).len(), APPLICANTS_MAX);
        for node in 2..100 {
            refused.add(NodeId(node), applicant("b:1"), start);
        }
        assert_eq!(crate::lock(&refused.0).len(), NODES_MAX);
        let later = start + ASKED_WITHIN;
        assert_eq!(refused.of(NodeId(1), later).len(), 0);
        refused.add(NodeId(1), applicant("a:0"), later);
        assert_eq!(crate::lock(&refused.0).len(), 1);
        refused.remove(NodeId(1));
        assert_eq!(refused.of(NodeId(1), later).len(), 0);
    }
}

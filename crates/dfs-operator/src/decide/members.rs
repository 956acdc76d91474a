//! Cluster members, and the replication factor of the files.

use std::time::Duration;

use dfs_types::{ClusterId, NodeState, Replication};
use kube::ResourceExt as _;

use super::{Action, Decision, rollout};
use crate::build::{Names, REVISION};
use crate::observed::{Observed, is_ready};

/// Admits datanodes that run in our pods, ends completed maintenance, and sets the replication
/// factor. Nodes without a pod are left alone: their data may be needed.
pub(super) fn decide(seen: &Observed, id: ClusterId, decision: &mut Decision) {
    let (Some(snapshot), Some(_)) = (seen.snapshot(), seen.known_id()) else { return };
    let spec = &seen.cluster.spec;
    // The schema keeps both far below the bound of the type.
    let small = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    let (factor, min_write) = (small(spec.replication_factor), spec.min_write_replicas.map(small));
    let min = Replication { factor, min_write }.min_write_for(factor);
    let desired = (u32::from(factor), u32::from(min));
    if (snapshot.replication_factor, snapshot.min_write_replicas) != desired {
        decision.actions.push(Action::SetReplication(id));
    }
    let Some(set) = &seen.stateful_set else { return };
    let names = Names::of(&seen.cluster);
    let revision = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref()?.annotations.as_ref()?.get(REVISION));
    let current = seen
        .cluster
        .status
        .as_ref()
        .and_then(|status| status.rollout.as_ref()?.current_pod.as_deref());
    for pod in seen.pods_of("datanode").filter(|pod| rollout::belongs_to(pod, set)) {
        let name = pod.name_any();
        let address = names.datanode_address(&name);
        for node in snapshot.nodes.iter().filter(|node| node.address == address) {
            if node.state == NodeState::Joining {
                let pod = name.clone();
                decision.actions.push(Action::Admit { cluster: id, node: node.id, pod });
            }
            // Maintenance announced by someone else is not ours to end.
            let is_ours = current == Some(name.as_str());
            let is_back = is_ready(pod) && pod.annotations().get(REVISION) == revision;
            if node.maintenance_left.is_some_and(|left| left > Duration::ZERO) && is_ours && is_back
            {
                let pod = name.clone();
                decision.actions.push(Action::EndMaintenance { cluster: id, node: node.id, pod });
            }
        }
    }
}

//! Room, and numbers of datanodes and zones.

use std::collections::BTreeSet;

use dfs_client::{DiskStatus, NodeStatus};
use dfs_types::{ByteSize, NodeState, counted};

use crate::doctor::facts::{Facts, name};
use crate::doctor::finding::{Code, Finding};

/// Used percentage of the cluster from which on room is low.
const USED_PERCENT_MAX: u64 = 85;

pub(super) fn rules(facts: &Facts, found: &mut Vec<Finding>) {
    let status = &facts.status;
    let is_active = |node: &&NodeStatus| node.state == NodeState::Active;
    let active: Vec<&NodeStatus> = status.nodes.iter().filter(is_active).collect();
    let taking = active.iter().filter(|node| !node.refuses_chunks).count() as u64;
    let (wanted, needed) = (status.replication_factor, status.min_write_replicas);
    if taking < u64::from(needed) {
        found.push(
            Finding::critical(
                Code::WritesImpossible,
                "files with the default replication cannot be written",
            )
            .why(format!(
                "a write needs {needed} durable replicas, each on another datanode, and {} take{} \
                     chunks",
                counted(taking, "datanode"),
                if taking == 1 { "s" } else { "" },
            ))
            .doing("reads, deletes and repair continue as far as possible; writers try again")
            .todo(
                "start datanodes that are down, or add datanodes or disks; deleting files makes \
                     room (`dfs rm --now`)",
            )
            .needs_person(),
        );
    }
    // Without a disk that takes chunks, its disks are findings of their own.
    let is_refusing =
        |node: &&&NodeStatus| node.refuses_chunks && node.disks.iter().any(takes_chunks);
    for node in active.iter().filter(is_refusing) {
        found.push(
            Finding::warning(Code::NodeFull, format!("{} takes no new chunks", name(node)))
                .why(format!(
                    "it is full or about to stop: {} of {} are free",
                    ByteSize(node.free()),
                    ByteSize(node.capacity())
                ))
                .doing(
                    "other datanodes take over; `rebalance` moves replicas away if they have room",
                )
                .todo("if it is not stopping, add disks or datanodes, or delete files"),
        );
    }
    // Those that return count.
    let is_member = |node: &&NodeStatus| {
        use NodeState::{Active, Maintenance, Suspect};
        matches!(node.state, Active | Maintenance | Suspect)
    };
    let members: Vec<&NodeStatus> = status.nodes.iter().filter(is_member).collect();
    if (members.len() as u64) < u64::from(wanted) {
        found.push(
            Finding::warning(
                Code::TooFewNodes,
                format!("files get fewer than {wanted} replicas"),
            )
            .why(format!(
                "each replica is on another datanode, and there are only {} to be used",
                counted(members.len() as u64, "datanode")
            ))
            .doing("files are written with as many as there are, and get the others when datanodes are added")
            .todo("add datanodes, or lower the number: `dfs set-replication --default N`")
            .needs_person(),
        );
    }
    let zones: BTreeSet<&str> = members.iter().map(|node| node.zone.as_str()).collect();
    if !zones.contains("") && zones.len() > 1 && (zones.len() as u64) < u64::from(wanted) {
        found.push(
            Finding::notice(
                Code::TooFewZones,
                format!("the {wanted} replicas of a file share {} zones", zones.len()),
            )
            .doing("they are spread over all of them")
            .todo("nothing, unless each replica has to be in a zone of its own: then add zones"),
        );
    }
    let (capacity, used) = (status.capacity(), status.used());
    let percent = u128::from(used) * 100 / u128::from(capacity.max(1));
    if percent >= u128::from(USED_PERCENT_MAX) {
        found.push(
            Finding::warning(Code::SpaceLow, format!("{percent} % of the cluster are used"))
                .why(format!("{} of {} are free", ByteSize(status.free()), ByteSize(capacity)))
                .doing("full datanodes take no new chunks; reads and deletes always work")
                .todo("add disks or datanodes, or delete files (`dfs rm --now` makes room at once)")
                .needs_person(),
        );
    }
}

fn takes_chunks(disk: &DiskStatus) -> bool {
    disk.state.takes_chunks()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{after, codes, judged};
    use super::*;
    use crate::doctor::finding::Severity::{Critical, Notice, Warning};

    #[test]
    fn writes_need_as_many_nodes_as_durable_replicas() {
        let with_refusing = |count: usize| {
            after(|facts| {
                facts
                    .status
                    .nodes
                    .iter_mut()
                    .take(count)
                    .for_each(|node| node.refuses_chunks = true);
            })
        };
        assert_eq!(judged(&with_refusing(2), Code::WritesImpossible), None);
        assert_eq!(judged(&with_refusing(3), Code::WritesImpossible), Some((Critical, true)));
        let one = with_refusing(1);
        assert_eq!(judged(&one, Code::NodeFull), Some((Warning, false)));
        let retiring = after(|facts| {
            facts.status.nodes[0].refuses_chunks = true;
            facts.status.nodes[0].disks[0].state = dfs_types::DiskState::Retiring;
        });
        assert_eq!(judged(&retiring, Code::NodeFull), None, "it is not full");
    }

    #[test]
    fn fewer_nodes_than_replicas_need_a_person_and_nodes_that_may_return_count() {
        let with_lost = |count: usize, state| {
            after(|facts| {
                facts.status.nodes.iter_mut().take(count).for_each(|node| node.state = state);
            })
        };
        assert_eq!(judged(&with_lost(1, NodeState::Lost), Code::TooFewNodes), None);
        assert_eq!(judged(&with_lost(2, NodeState::Suspect), Code::TooFewNodes), None);
        let lost = with_lost(2, NodeState::Lost);
        assert_eq!(judged(&lost, Code::TooFewNodes), Some((Warning, true)));
    }

    #[test]
    fn fewer_zones_than_replicas_are_worth_knowing_if_zones_are_named() {
        let with_zones = |zones: [&str; 4]| {
            let found = after(|facts| {
                for (node, zone) in facts.status.nodes.iter_mut().zip(zones) {
                    node.zone = zone.to_owned();
                }
            });
            judged(&found, Code::TooFewZones)
        };
        assert_eq!(with_zones(["a", "b", "a", "b"]), Some((Notice, false)));
        assert_eq!(with_zones(["a", "b", "c", "a"]), None);
        assert_eq!(with_zones(["a", "b", "", ""]), None);
    }

    #[test]
    fn room_is_low_from_85_percent_on() {
        let with_free = |percent: u64| {
            after(|facts| {
                for node in &mut facts.status.nodes {
                    node.disks[0].capacity = 100;
                    node.disks[0].free = percent;
                }
            })
        };
        assert_eq!(judged(&with_free(15), Code::SpaceLow), Some((Warning, true)));
        assert_eq!(codes(&with_free(16)), []);
    }
}

//! Datanodes: silent, lost, in maintenance, on their way in or out.

use std::time::Duration;

use dfs_client::{ClusterStatus, NodeStatus};
use dfs_types::{NodeState, counted};

use super::moves::emptying;
use crate::doctor::facts::{Emptying, Facts, name};
use crate::doctor::finding::{Code, Finding};
use crate::output::span_text;

/// Rest of a maintenance from which on it is about to end.
const ENDING: Duration = Duration::from_mins(10);
/// Silence of a datanode in maintenance that is down.
const SILENT: Duration = Duration::from_mins(1);

pub(super) fn rules(facts: &Facts, found: &mut Vec<Finding>) {
    let status = &facts.status;
    for refused in &status.refused_nodes {
        let (node, address) = (refused.node, &refused.address);
        found.push(
            Finding::warning(
                Code::NodeRefused,
                format!("the process at {address} is refused: all its disks are older copies of node {node}"),
            )
            .why("a machine that was restored from a backup, or a second copy of its disks")
            .doing("it asks again every few seconds; nothing of it is used")
            .todo(format!(
                "if it is to replace the datanode, `dfs node readmit {node}`; otherwise stop it, and \
                 give it empty disks"
            ))
            .needs_person(),
        );
    }
    for node in &status.nodes {
        found.extend(match node.state {
            NodeState::Joining => Some(joining(node)),
            NodeState::Suspect => Some(suspect(node, status)),
            NodeState::Lost => Some(lost(node, status)),
            NodeState::Maintenance => Some(maintenance(node)),
            NodeState::Draining => {
                let this = Emptying { node: node.id, disk: None };
                emptying(
                    facts,
                    this,
                    &name(node),
                    node.chunks(),
                    &format!("dfs node undrain {}", node.id),
                )
            }
            NodeState::Drained => Some(
                Finding::notice(
                    Code::NodeDrained,
                    format!("{} is drained: it holds nothing", name(node)),
                )
                .todo(format!(
                    "`dfs node deregister {0}` removes it, `dfs node undrain {0}` uses it again",
                    node.id
                )),
            ),
            NodeState::Active | NodeState::Removed => None,
        });
    }
}

fn heard(node: &NodeStatus) -> String {
    match node.last_heard {
        Some(ago) => format!("its last heartbeat was {} ago", span_text(ago)),
        None => "this coordinator has got no heartbeat of it".to_owned(),
    }
}

fn joining(node: &NodeStatus) -> Finding {
    if node.last_heard.is_some() {
        return Finding::warning(
            Code::NodeNotAdmitted,
            format!("{} has joined and is not used yet", name(node)),
        )
        .why("coordinators with `auto_admit: false` use a datanode only once it is admitted")
        .todo(format!("`dfs node admit {}`; in Kubernetes the operator does that", node.id))
        .needs_person();
    }
    Finding::notice(
        Code::NodeNotHeard,
        format!("{} has registered, but sent no heartbeat yet", name(node)),
    )
    .why("it, or this coordinator, has just started, or it cannot reach this coordinator")
    .doing("it tries again and again")
    .todo("if this lasts, its log says why")
}

fn suspect(node: &NodeStatus, status: &ClusterStatus) -> Finding {
    let doing = match (&status.repair_held, node.lost_in) {
        (Some(_), _) => "repair is held, and waits for it to return".to_owned(),
        (None, Some(left)) => format!(
            "waiting for it to return; once it is lost, in {}, what it holds is rebuilt elsewhere",
            span_text(left)
        ),
        (None, None) => "waiting for it to return".to_owned(),
    };
    Finding::warning(Code::NodeSuspect, format!("{} is silent", name(node)))
        .why(heard(node))
        .doing(doing)
        .todo(format!(
            "start it again; if it is down on purpose, `dfs node maintenance {}` keeps what it holds \
             from being rebuilt",
            node.id
        ))
}

fn lost(node: &NodeStatus, status: &ClusterStatus) -> Finding {
    let counts = status.replication.as_ref();
    let lacking = counts.map(|counts| counts.under_replicated + counts.missing);
    let doing = match (&status.repair_held, lacking) {
        (Some(_), _) => "nothing: repair is held".to_owned(),
        (None, Some(0)) => {
            "what it held has been rebuilt elsewhere: no chunk lacks a replica".to_owned()
        }
        (None, Some(left)) => {
            format!(
                "what it held is being rebuilt elsewhere; {} lack replicas",
                counted(left, "chunk")
            )
        }
        (None, None) => "what it held is being rebuilt elsewhere".to_owned(),
    };
    Finding::warning(Code::NodeLost, format!("{} is lost", name(node)))
        .why(heard(node))
        .doing(doing)
        .todo(format!(
            "start it again with its disks; if it will never come back, `dfs node forget {}`",
            node.id
        ))
}

fn maintenance(node: &NodeStatus) -> Finding {
    let left = node.maintenance_left.unwrap_or_default();
    let is_down = node.last_heard.is_none_or(|ago| ago >= SILENT);
    let ends = span_text(left);
    if is_down && left < ENDING {
        return Finding::warning(
            Code::MaintenanceEnding,
            format!("the maintenance of {} ends in {ends}, and it is still down", name(node)),
        )
        .why(heard(node))
        .doing("after that it counts as lost, and what it holds is rebuilt elsewhere")
        .todo(format!("start it, or renew: `dfs node maintenance {} --for 1h`", node.id))
        .needs_person();
    }
    let finding = Finding::notice(
        Code::NodeInMaintenance,
        format!("{} is in maintenance for {ends} more", name(node)),
    );
    let finding = finding.why(if is_down { heard(node) } else { "it responds".to_owned() });
    finding
        .doing(
            "it gets no new replicas, and what it holds is not rebuilt until the maintenance ends",
        )
        .todo(format!("`dfs node maintenance {} --end` once it is back", node.id))
}

#[cfg(test)]
mod tests {
    use dfs_client::RefusedNode;
    use dfs_types::NodeId;

    use super::super::tests::{after, codes, judged};
    use super::*;
    use crate::doctor::facts::tests::counts;
    use crate::doctor::finding::Severity::{Notice, Warning};

    fn with_state(state: NodeState, change: impl FnOnce(&mut NodeStatus)) -> Vec<Finding> {
        after(|facts| {
            facts.status.nodes.push(crate::doctor::facts::tests::node(5));
            facts.status.nodes[4].state = state;
            change(&mut facts.status.nodes[4]);
        })
    }

    #[test]
    fn silent_node_is_waited_for() {
        let found = with_state(NodeState::Suspect, |node| {
            node.lost_in = Some(Duration::from_secs(18));
        });
        assert_eq!(judged(&found, Code::NodeSuspect), Some((Warning, false)));
        assert!(found[0].doing.contains("once it is lost, in 18 s"), "{found:?}");
        assert!(found[0].todo.contains(&format!("dfs node maintenance {}", NodeId(5))));
    }

    #[test]
    fn lost_node_says_whether_it_was_rebuilt() {
        let lost = |lacking, held: Option<&str>| {
            let found = after(|facts| {
                facts.status.nodes.push(crate::doctor::facts::tests::node(5));
                facts.status.nodes[4].state = NodeState::Lost;
                facts.status.repair_held = held.map(str::to_owned);
                counts(facts).under_replicated = lacking;
            });
            assert_eq!(judged(&found, Code::NodeLost), Some((Warning, false)));
            found.into_iter().find(|it| it.code == Code::NodeLost).unwrap().doing
        };
        assert!(lost(0, None).contains("has been rebuilt"));
        assert!(lost(3, None).contains("is being rebuilt elsewhere; 3 chunks lack"));
        assert_eq!(lost(3, Some("held")), "nothing: repair is held");
    }

    #[test]
    fn maintenance_of_a_node_that_is_down_warns_before_it_ends() {
        let maintenance = |minutes, heard| {
            with_state(NodeState::Maintenance, |node| {
                node.maintenance_left = Some(Duration::from_mins(minutes));
                node.last_heard = heard;
            })
        };
        let down = Some(Duration::from_mins(30));
        assert_eq!(judged(&maintenance(9, down), Code::MaintenanceEnding), Some((Warning, true)));
        assert_eq!(judged(&maintenance(9, None), Code::MaintenanceEnding), Some((Warning, true)));
        assert_eq!(codes(&maintenance(11, down)), [Code::NodeInMaintenance]);
        let up = Some(Duration::from_secs(1));
        assert_eq!(judged(&maintenance(9, up), Code::NodeInMaintenance), Some((Notice, false)));
    }

    #[test]
    fn joining_node_is_to_be_admitted_once_it_was_heard() {
        let found = with_state(NodeState::Joining, |_| {});
        assert_eq!(judged(&found, Code::NodeNotAdmitted), Some((Warning, true)));
        let found = with_state(NodeState::Joining, |node| node.last_heard = None);
        assert_eq!(judged(&found, Code::NodeNotHeard), Some((Notice, false)));
    }

    #[test]
    fn drained_and_refused_nodes_are_named_with_what_to_do() {
        let found = with_state(NodeState::Drained, |_| {});
        assert_eq!(judged(&found, Code::NodeDrained), Some((Notice, false)));
        let found = after(|facts| {
            let (node, address) = (NodeId(7), "x:1".to_owned());
            facts.status.refused_nodes = vec![RefusedNode { node, address }];
        });
        assert_eq!(judged(&found, Code::NodeRefused), Some((Warning, true)));
        assert!(found[0].todo.contains(&format!("dfs node readmit {}", NodeId(7))), "{found:?}");
    }
}

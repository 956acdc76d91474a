//! The plan of a move, as shown before it begins.

use dfs_client::{ClusterStatus, MovePlan, NodeStatus};
use dfs_types::{ByteSize, NodeState};
use serde_json::{Value, json};

use crate::output::span_text;

/// Returns the plan of rebuilding what a lost node held, by its last heartbeat.
pub(crate) fn rebuild(status: &ClusterStatus, node: &NodeStatus) -> MovePlan {
    let takes_chunks =
        |other: &&NodeStatus| other.state == NodeState::Active && !other.refuses_chunks;
    let targets: Vec<&NodeStatus> = status.nodes.iter().filter(takes_chunks).collect();
    let repair = status.workers.iter().find(|worker| worker.name == "repair");
    let mut plan = MovePlan::default();
    plan.replicas = node.chunks();
    plan.bytes = if plan.replicas > 0 { node.used() } else { 0 };
    plan.room = targets.iter().map(|target| target.free()).fold(0, u64::saturating_add);
    plan.targets = targets.len() as u32;
    plan.rate = repair.and_then(|worker| worker.rate);
    if node.last_heard.is_none() {
        plan.blockers.push(format!("what node {} held is not known here", node.id));
    }
    if repair.is_some_and(|worker| worker.pause_left.is_some()) {
        plan.blockers
            .push("worker repair is paused; `dfs worker resume repair` ends that".to_owned());
    }
    plan
}

/// Returns the lines that show the plan of a move to people.
pub(crate) fn lines(what: &str, plan: &MovePlan) -> Vec<String> {
    described(what, ("go to", "drain"), plan)
}

/// Returns the lines that show the plan of a rebuild to people.
pub(crate) fn rebuild_lines(what: &str, plan: &MovePlan) -> Vec<String> {
    described(what, ("are rebuilt on", "repair"), plan)
}

fn described(what: &str, (goes, worker): (&str, &str), plan: &MovePlan) -> Vec<String> {
    let MovePlan { replicas, bytes, room, targets, .. } = plan;
    let fits = if plan.fits() { "fits" } else { "does not fit" };
    let mut lines = vec![format!(
        "{what}: {replicas} replicas, up to {}, {goes} {targets} other datanodes with {} free, where \
         this {fits}",
        ByteSize(*bytes),
        ByteSize(*room)
    )];
    lines.push(match (plan.rate, plan.duration()) {
        (Some(rate), Some(time)) => format!(
            "  at most {} per second: at least {} (`dfs worker rate {worker}` changes it)",
            ByteSize(rate),
            span_text(time)
        ),
        _ => "  without a limit on the rate".to_owned(),
    });
    lines.extend(plan.blockers.iter().map(|blocker| format!("  {blocker}")));
    lines
}

/// Returns the fields of a plan in a document.
pub(crate) fn document(plan: &MovePlan) -> Value {
    json!({
        "replicas": plan.replicas,
        "bytes": plan.bytes,
        "room": plan.room,
        "targets": plan.targets,
        "fits": plan.fits(),
        "rate": plan.rate,
        "duration_ms": plan.duration().map(|time| time.as_millis() as u64),
        "blockers": plan.blockers,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dfs_client::{DiskStatus, WorkerStatus};
    use dfs_types::{ClusterId, DiskId, NodeId};

    use super::*;

    #[test]
    fn rebuild_goes_to_nodes_that_take_chunks() {
        let node = |id, state| {
            let mut node = NodeStatus::new(NodeId(id), "a:7080", state);
            node.disks = vec![DiskStatus::new(DiskId(id), 4 << 20)];
            node.last_heard = Some(Duration::from_mins(1));
            node
        };
        let mut status = ClusterStatus::new(ClusterId(1));
        let states = [NodeState::Lost, NodeState::Active, NodeState::Active, NodeState::Draining];
        status.nodes = (1..).zip(states).map(|(id, state)| node(id, state)).collect();
        status.nodes[2].refuses_chunks = true;
        status.nodes[0].disks[0].chunks = 7;
        status.nodes[0].disks[0].free = 1 << 20;
        let mut worker = WorkerStatus::new("repair");
        worker.rate = Some(1 << 20);
        status.workers = vec![worker];
        let plan = rebuild(&status, &status.nodes[0]);
        assert_eq!((plan.replicas, plan.bytes >> 20, plan.room >> 20), (7, 3, 4));
        assert_eq!((plan.targets, plan.blockers.len()), (1, 0));
        let text = rebuild_lines("node 1", &plan).join("\n");
        for part in
            ["7 replicas", "are rebuilt on 1 other", "at least 3 s (`dfs worker rate repair`"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        status.nodes[0].last_heard = None;
        status.workers[0].pause_left = Some(Duration::from_mins(1));
        assert_eq!(rebuild(&status, &status.nodes[0]).blockers.len(), 2);
    }

    #[test]
    fn plan_says_how_much_how_long_and_what_blocks() {
        let mut plan = MovePlan::default();
        (plan.replicas, plan.bytes, plan.room, plan.targets) = (7, 600 << 20, 1 << 30, 2);
        plan.rate = Some(1 << 20);
        plan.blockers = vec!["2 other nodes take chunks".to_owned()];
        let text = lines("node 1", &plan).join("\n");
        for part in ["7 replicas", "2 other datanodes", "this fits", "10 min", "  2 other nodes"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        plan.room = 0;
        assert!(lines("node 1", &plan)[0].contains("does not fit"));
        assert_eq!(document(&plan)["duration_ms"], 600_000);
    }
}

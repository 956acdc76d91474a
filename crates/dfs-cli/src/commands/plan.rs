//! The plan of a move, as shown before it begins.

use std::collections::BTreeSet;

use dfs_client::{ClusterStatus, MovePlan, NodeStatus};
use dfs_types::{ByteSize, NodeId, NodeState, counted};
use serde_json::{Value, json};

use crate::output::span_text;

/// Targets that a plan names at most.
const TARGETS_NAMED_MAX: usize = 5;

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
    plan.targets = targets.iter().map(|target| target.id).collect();
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

/// Returns the plan of several moves at once: they share the room of their targets.
pub(crate) fn together(status: &ClusterStatus, plans: &[&MovePlan]) -> MovePlan {
    let mut all = MovePlan::default();
    let mut targets = BTreeSet::new();
    for plan in plans {
        all.replicas = all.replicas.saturating_add(plan.replicas);
        all.bytes = all.bytes.saturating_add(plan.bytes);
        all.rate = plan.rate;
        targets.extend(plan.targets.iter().copied());
    }
    let free = status.nodes.iter().filter(|node| targets.contains(&node.id)).map(NodeStatus::free);
    all.room = free.fold(0, u64::saturating_add);
    all.targets = targets.into_iter().collect();
    all
}

/// What is moved or rebuilt, for people.
pub(crate) struct Subject<'a> {
    /// Its name.
    pub(crate) what: &'a str,
    /// The node whose other disks can take replicas, too.
    pub(crate) own: Option<NodeId>,
    pub(crate) status: &'a ClusterStatus,
}

impl Subject<'_> {
    /// Returns the lines that show the plan of a move.
    pub(crate) fn move_lines(&self, plan: &MovePlan) -> Vec<String> {
        self.lines(("go to", "drain"), plan)
    }

    /// Returns the lines that show the plan of a rebuild.
    pub(crate) fn rebuild_lines(&self, plan: &MovePlan) -> Vec<String> {
        self.lines(("are rebuilt on", "repair"), plan)
    }

    fn lines(&self, (goes, worker): (&str, &str), plan: &MovePlan) -> Vec<String> {
        let (what, bytes) = (self.what, ByteSize(plan.bytes));
        let replicas = counted(plan.replicas, "replica");
        let mut lines = vec![match plan.targets.len() {
            0 => format!("{what}: {replicas}, up to {bytes}, but no datanode can take any"),
            _ => format!(
                "{what}: {replicas}, up to {bytes}, {goes} {} with {} free, where this {}",
                self.targets(plan),
                ByteSize(plan.room),
                if plan.fits() { "fits" } else { "does not fit" }
            ),
        }];
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

    /// Names the targets of a plan.
    fn targets(&self, plan: &MovePlan) -> String {
        let named = plan.targets.iter().take(TARGETS_NAMED_MAX).map(|target| {
            let found = self.status.nodes.iter().find(|node| node.id == *target);
            match found {
                _ if self.own == Some(*target) => "its other disks".to_owned(),
                Some(found) => found.address.clone(),
                None => target.to_string(),
            }
        });
        let mut names: Vec<String> = named.collect();
        let more = plan.targets.len().saturating_sub(TARGETS_NAMED_MAX);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let targets = counted(plan.targets.len() as u64, "datanode");
        format!("{targets} ({})", names.join(", "))
    }
}

/// Returns the fields of a plan in a document.
pub(crate) fn document(plan: &MovePlan) -> Value {
    json!({
        "replicas": plan.replicas,
        "bytes": plan.bytes,
        "room": plan.room,
        "targets": plan.targets.len(),
        "target_nodes": plan.targets.iter().map(NodeId::to_string).collect::<Vec<_>>(),
        "checked": plan.checked,
        "stuck": plan.stuck,
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
    use dfs_types::{ClusterId, DiskId};

    use super::*;

    fn subject(status: &ClusterStatus) -> Subject<'_> {
        Subject { what: "node 1", own: None, status }
    }

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
        assert_eq!((&plan.targets[..], plan.blockers.len()), (&[NodeId(2)][..], 0));
        let text = subject(&status).rebuild_lines(&plan).join("\n");
        for part in
            ["7 replicas", "are rebuilt on 1 datanode", "at least 3 s (`dfs worker rate repair`"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        // What fits for each of two nodes may not fit for both.
        let both = together(&status, &[&plan, &plan]);
        assert!(plan.fits() && !both.fits());
        assert_eq!((both.replicas, both.room >> 20, both.targets.len()), (14, 4, 1));
        status.nodes[0].last_heard = None;
        status.workers[0].pause_left = Some(Duration::from_mins(1));
        assert_eq!(rebuild(&status, &status.nodes[0]).blockers.len(), 2);
    }

    #[test]
    fn plan_says_how_much_where_to_how_long_and_what_blocks() {
        let mut status = ClusterStatus::new(ClusterId(1));
        status.nodes = vec![NodeStatus::new(NodeId(2), "b:7080", NodeState::Active)];
        let mut plan = MovePlan::default();
        (plan.replicas, plan.bytes, plan.room) = (7, 600 << 20, 1 << 30);
        plan.targets = vec![NodeId(1), NodeId(2)];
        plan.rate = Some(1 << 20);
        plan.blockers = vec!["2 other nodes take chunks".to_owned()];
        let of_disk = Subject { own: Some(NodeId(1)), ..subject(&status) };
        let text = of_disk.move_lines(&plan).join("\n");
        for part in [
            "7 replicas",
            "go to 2 datanodes (its other disks, b:7080)",
            "this fits",
            "10 min",
            "  2 other nodes",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        plan.room = 0;
        assert!(of_disk.move_lines(&plan)[0].contains("does not fit"));
        assert_eq!(document(&plan)["duration_ms"], 600_000);
        plan.targets.clear();
        let nowhere = &of_disk.move_lines(&plan)[0];
        assert!(nowhere.ends_with("no datanode can take any"), "{nowhere}");
    }
}

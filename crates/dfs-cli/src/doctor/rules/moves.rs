//! Draining nodes and retiring disks, which may have nowhere to move their replicas.

use dfs_types::counted;

use crate::doctor::facts::{Emptying, Facts};
use crate::doctor::finding::{Code, Finding};
use crate::output::span_text;

/// Returns the finding of a node or disk that is being emptied; `None` if its plan is not known, which
/// is a finding of its own.
pub(super) fn emptying(
    facts: &Facts,
    what: Emptying,
    name: &str,
    replicas: u64,
    undo: &str,
) -> Option<Finding> {
    let (_, plan) = facts.moves.iter().find(|(found, _)| *found == what)?;
    let plan = plan.as_ref().ok()?;
    let left = counted(replicas, "replica");
    let drain = facts.worker("drain");
    let mut obstacles = plan.blockers.clone();
    obstacles.extend(facts.status.repair_held.clone());
    if let Some(pause) = drain.and_then(|worker| worker.pause_left) {
        let pause = span_text(pause);
        obstacles.push(format!(
            "the worker `drain` is paused for {pause} more; `dfs worker resume drain` ends that"
        ));
    }
    if replicas > 0 && !obstacles.is_empty() {
        return Some(
            Finding::warning(
                Code::DrainStuck,
                format!("{name} cannot be emptied now; {left} left"),
            )
            .why(obstacles.join("; "))
            .doing("what can be moved is moved, and the rest is tried again")
            .todo(format!("remove the obstacles, or take it back: `{undo}`"))
            .needs_person(),
        );
    }
    Some(
        Finding::notice(Code::Draining, format!("{name} is being emptied; {left} left"))
            .doing(drain.map(|worker| worker.state.clone()).unwrap_or_default())
            .todo(format!("`{undo}` takes it back")),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dfs_client::MovePlan;
    use dfs_types::{DiskId, DiskState, NodeId, NodeState};

    use super::super::tests::{after, judged};
    use super::*;
    use crate::doctor::finding::Severity::{Notice, Warning};

    fn draining(plan: MovePlan, change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
        after(|facts| {
            facts.status.nodes.push(crate::doctor::facts::tests::node(5));
            facts.status.nodes[4].state = NodeState::Draining;
            facts.status.nodes[4].disks[0].chunks = 7;
            facts.moves = vec![(Emptying { node: NodeId(5), disk: None }, Ok(plan))];
            change(facts);
        })
    }

    #[test]
    fn drain_with_an_obstacle_needs_a_person() {
        let free = draining(MovePlan::default(), |_| {});
        assert_eq!(judged(&free, Code::Draining), Some((Notice, false)));
        let mut plan = MovePlan::default();
        plan.blockers = vec!["nothing can take them".to_owned()];
        let stuck = draining(plan, |_| {});
        assert_eq!(judged(&stuck, Code::DrainStuck), Some((Warning, true)));
        assert!(stuck[0].todo.contains(&format!("dfs node undrain {}", NodeId(5))), "{stuck:?}");
        let paused = draining(MovePlan::default(), |facts| {
            facts.status.workers[1].pause_left = Some(Duration::from_mins(3));
        });
        assert_eq!(judged(&paused, Code::DrainStuck), Some((Warning, true)));
    }

    #[test]
    fn retiring_disk_is_judged_by_its_own_plan() {
        let mut plan = MovePlan::default();
        plan.blockers = vec!["nothing can take them".to_owned()];
        let found = after(|facts| {
            let disk = &mut facts.status.nodes[0].disks[0];
            (disk.state, disk.chunks) = (DiskState::Retiring, 1);
            let what = Emptying { node: NodeId(1), disk: Some(DiskId(1)) };
            facts.moves = vec![(what, Ok(plan))];
        });
        assert_eq!(judged(&found, Code::DrainStuck), Some((Warning, true)));
        assert!(found[0].todo.contains(&format!("dfs disk retire {} --undo", DiskId(1))));
    }
}

//! The brake: repair is held while too many nodes are lost at once. Pure.

use dfs_types::NodeState;

use crate::node_liveness::View;

/// Absent nodes from which on repair can be held. Two of a few nodes may well fail by themselves,
/// and leave chunks with a single replica, for which waiting is worse than building others in vain.
const ABSENT_MIN: usize = 3;
/// Repair is held when more than one in this many nodes is absent.
const ONE_IN: usize = 4;

/// Returns why repair is held; `None` when it is not. Besides lost nodes, silent ones count, which
/// may be about to be lost for the same reason; lost nodes that were given up, or whose replicas
/// were all rebuilt, do not.
pub(super) fn reason(views: &[View], is_rebuilt: impl Fn(&View) -> bool) -> Option<String> {
    // The others hold nothing.
    let holds_replicas =
        |view: &&View| matches!(view.member.admin_state, NodeState::Active | NodeState::Draining);
    let members = views.iter().filter(holds_replicas).count();
    let views = views.iter().filter(holds_replicas);
    let is_feared = |view: &&View| !view.member.is_given_up && !is_rebuilt(view);
    let lost = views.clone().filter(|view| view.state == NodeState::Lost).filter(is_feared);
    let lost: Vec<_> = lost.map(|view| view.node).collect();
    let silent = views.filter(|view| view.state == NodeState::Suspect).count();
    let absent = lost.len() + silent;
    if lost.is_empty() || absent < ABSENT_MIN || absent * ONE_IN <= members {
        return None;
    }
    Some(format!(
        "repair is held: {absent} of {members} datanodes are lost or silent at once, for example \
         {}; bring them back, or, if they will not return, give them up with `dfs node give-up`",
        lost[0]
    ))
}

#[cfg(test)]
mod tests {
    use super::super::chunk::tests::view;
    use super::*;

    /// Returns nodes of which the first are lost, and the next silent.
    fn nodes(all: u128, lost: u128, silent: u128) -> Vec<View> {
        let state = |node| match node {
            _ if node < lost => NodeState::Lost,
            _ if node < lost + silent => NodeState::Suspect,
            _ => NodeState::Active,
        };
        (0..all).map(|node| view(node, "", state(node))).collect()
    }

    fn is_held(views: &[View]) -> bool {
        reason(views, |_| false).is_some()
    }

    #[test]
    fn more_than_a_quarter_lost_or_silent_holds_repair() {
        for (all, lost, silent, held) in [
            (3, 1, 0, false),
            (3, 1, 1, false),
            (5, 2, 0, false),
            (5, 3, 0, true),
            (5, 1, 2, true),
            (3, 0, 3, false),
            (8, 2, 0, false),
            (8, 3, 0, true),
            (8, 1, 1, false),
            (8, 1, 2, true),
            (100, 25, 0, false),
            (100, 1, 25, true),
        ] {
            assert_eq!(is_held(&nodes(all, lost, silent)), held, "{all} {lost} {silent}");
        }
    }

    #[test]
    fn nodes_that_hold_nothing_that_is_needed_do_not_count() {
        let views = nodes(9, 3, 0);
        assert_eq!(reason(&views, |view| view.node == views[0].node), None);
        let mut given_up = views.clone();
        given_up[0].member.is_given_up = true;
        assert!(!is_held(&given_up));
        let mut drained = views.clone();
        drained[0].member.admin_state = NodeState::Drained;
        assert!(!is_held(&drained));
        // Nor do they make the cluster look larger.
        let mut joining = nodes(12, 3, 0);
        assert!(!is_held(&joining));
        for view in &mut joining[8..] {
            view.member.admin_state = NodeState::Joining;
        }
        assert!(is_held(&joining));
    }
}

//! Chunks without enough replicas, and their repair.

use std::time::Duration;

use dfs_client::{FailingTarget, ReplicationStatus};
use dfs_types::{NodeState, counted};

use crate::doctor::facts::{Facts, name};
use crate::doctor::finding::{Code, Finding, Severity};
use crate::output::span_text;

/// Time for which chunks may lack replicas while repair works on them.
const REPAIRED_WITHIN: Duration = Duration::from_hours(6);
/// Nodes where builds fail that are reported at most.
const FAILING_MAX: usize = 5;
/// Nodes that are named at most.
const NAMED_MAX: usize = 3;

pub(super) fn rules(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(counts) = &facts.status.replication else {
        if !facts.status.worker_lease_holder.is_empty() {
            let finding = Finding::notice(
                Code::ChunksNotCounted,
                "it is not known yet whether chunks lack replicas",
            );
            found.push(
                finding
                    .why("the chunks are being counted, as after each change of coordinators or disks")
                    .doing("until then, those that are known to lack replicas are repaired")
                    .todo("run `dfs doctor` again in a while"),
            );
        }
        held(facts, Severity::Critical, found);
        return;
    };
    missing(facts, counts, found);
    if counts.unreadable_records > 0 {
        found.push(
            Finding::critical(
                Code::RecordsUnreadable,
                format!("{} of the metadata cannot be read", counted(counts.unreadable_records, "record")),
            )
            .why(format!("for example {}", counts.unreadable_example))
            .doing("they are skipped; everything else is repaired")
            .todo(
                "stop the coordinator and run `dfs metadata check`; restore the records from a backup, \
                 or delete the files that cannot be opened because of them",
            )
            .needs_person(),
        );
    }
    let severity = match counts.without_spare {
        0 => Severity::Warning,
        _ => Severity::Critical,
    };
    held(facts, severity, found);
    lacking(facts, counts, severity, found);
    let failing = counts.failing_targets.iter().take(FAILING_MAX);
    found.extend(failing.map(|failing| builds_fail(facts, failing)));
    if counts.bad_replicas > 0 {
        found.push(
            Finding::notice(
                Code::BadReplicas,
                format!("{} are damaged", counted(counts.bad_replicas, "replica")),
            )
            .why("their disks returned other bytes than were written")
            .doing("they are read last, and replaced by good ones")
            .todo("if one disk has many of them, replace it: `dfs disk retire DISK`"),
        );
    }
}

/// Names nodes in these states.
fn nodes_in(facts: &Facts, states: &[NodeState]) -> Option<String> {
    let nodes: Vec<_> = facts.status.nodes.iter().filter(|it| states.contains(&it.state)).collect();
    let mut names: Vec<String> = nodes.iter().take(NAMED_MAX).map(|node| name(node)).collect();
    if nodes.len() > NAMED_MAX {
        names.push(counted((nodes.len() - NAMED_MAX) as u64, "other"));
    }
    (!names.is_empty()).then(|| names.join(", "))
}

fn missing(facts: &Facts, counts: &ReplicationStatus, found: &mut Vec<Finding>) {
    if counts.missing == 0 {
        return;
    }
    let chunks = counted(counts.missing, "chunk");
    let finding = Finding::critical(
        Code::ChunksMissing,
        format!("{chunks} cannot be read: no sound replica can be reached"),
    );
    let list = "`dfs fsck` lists the paths";
    found.push(
        match nodes_in(facts, &[NodeState::Lost]) {
            Some(lost) => finding
                .why(format!("their replicas may be on lost datanodes: {lost}"))
                .doing("they are read and repaired as soon as a replica is back")
                .todo(format!("start the lost datanodes again, with their disks; {list}")),
            None => finding
                .why("all of their replicas are recorded as gone or bad, or are on disks out of service")
                .doing("a disk that comes back with a replica is compared, and the replica is used")
                .todo(format!(
                    "bring back the disks; {list}, and `dfs fsck --delete-lost` gives up what is lost"
                )),
        }
        .needs_person(),
    );
}

fn builds_fail(facts: &Facts, failing: &FailingTarget) -> Finding {
    let node = facts.status.nodes.iter().find(|node| node.id == failing.node);
    let name = node.map_or_else(|| format!("node {}", failing.node), name);
    let finding = Finding::warning(Code::BuildsFail, format!("replicas cannot be built on {name}"));
    let (why, todo) = if failing.reaches_no_source {
        let why = "it gets a replica from none of the datanodes to build from";
        (why, "check its network and theirs; its log says why".to_owned())
    } else {
        let todo = "its log and that of the coordinator say why; replace its disks, or move everything \
                    away";
        ("it cannot build, or does not reply", format!("{todo}: `dfs node drain {}`", failing.node))
    };
    let next = span_text(failing.rests + Duration::from_secs(1));
    finding
        .why(why)
        .doing(format!("other datanodes get replicas first; the next attempt is in {next}"))
        .todo(todo)
}

fn held(facts: &Facts, severity: Severity, found: &mut Vec<Finding>) {
    let Some(why) = &facts.status.repair_held else { return };
    let lost = facts.status.nodes.iter().filter(|node| node.state == NodeState::Lost);
    let lost: Vec<String> = lost.map(|node| node.id.to_string()).collect();
    found.push(
        Finding::new(Code::RepairHeld, severity, "repair is held: nothing is rebuilt or moved")
            .why(why)
            .doing("it goes on by itself once enough datanodes are back")
            .todo(format!(
                "start them again; those that will not return are given up by `dfs node give-up {}`",
                lost.join(" ")
            ))
            .needs_person(),
    );
}

/// Adds why chunks lack replicas for so long, and what is done about it.
fn lacking(
    facts: &Facts,
    counts: &ReplicationStatus,
    severity: Severity,
    found: &mut Vec<Finding>,
) {
    let repair = facts.worker("repair");
    let pause = repair.and_then(|worker| worker.pause_left);
    if let Some(left) = pause.filter(|_| facts.has_work_for_repair()) {
        found.push(
            Finding::new(Code::RepairPaused, severity, "repair is paused while chunks need it")
                .why("an administrator paused the worker `repair`")
                .doing(format!("the pause ends by itself in {}", span_text(left)))
                .todo("`dfs worker resume repair`")
                .needs_person(),
        );
    }
    if counts.without_target > 0 {
        let chunks = counted(counts.without_target, "chunk");
        let away = [NodeState::Lost, NodeState::Suspect, NodeState::Maintenance];
        let away = nodes_in(facts, &away).map(|away| format!("; not available: {away}"));
        found.push(
            Finding::new(
                Code::RepairNoTarget,
                severity,
                format!("{chunks} cannot be repaired: no datanode can take a replica"),
            )
            .why(format!(
                "every datanode that takes chunks has a replica already, or is full{}",
                away.unwrap_or_default()
            ))
            .doing("each is tried again once a minute, and at once when a datanode is added or returns")
            .todo(
                "start datanodes that are down, add datanodes or disks, or lower the replication \
                 factor with `dfs set-replication`",
            )
            .needs_person(),
        );
    }
    let is_at_work = facts.status.repair_held.is_none() && pause.is_none();
    let is_possible = counts.without_target < counts.under_replicated;
    if let Some(time) = counts.degraded.filter(|time| *time >= REPAIRED_WITHIN)
        && is_at_work
        && is_possible
        && counts.under_replicated > 0
    {
        found.push(
            Finding::new(
                Code::RepairBehind,
                severity,
                format!("chunks have lacked replicas for {}", span_text(time)),
            )
            .why(repair.map(|worker| worker.state.clone()).unwrap_or_default())
            .doing("repair works on them, at its rate")
            .todo("`dfs worker list` shows failures and the rate; `dfs worker rate repair unlimited` raises it")
            .needs_person(),
        );
    }
    if counts.under_replicated == 0 {
        return;
    }
    let chunks = counted(counts.under_replicated, "chunk");
    let sole = match counts.without_spare {
        0 => String::new(),
        sole => format!("; {sole} of them are lost if one more replica is"),
    };
    let doing = match (&facts.status.repair_held, pause) {
        (Some(_), _) => "nothing: repair is held".to_owned(),
        (_, Some(_)) => "nothing: repair is paused".to_owned(),
        _ => {
            let state = repair.map(|worker| worker.state.clone()).unwrap_or_default();
            match counts.repairing {
                0 => state,
                busy => format!(
                    "{} being repaired now, those with the fewest replicas first ({state})",
                    if busy == 1 { "1 is".to_owned() } else { format!("{busy} are") }
                ),
            }
        }
    };
    found.push(
        Finding::new(
            Code::UnderReplicated,
            severity,
            format!("{chunks} have fewer good replicas than wanted{sole}"),
        )
        .why(
            "a datanode or disk was lost, a replica is damaged, a file was written without one, or more \
             are wanted than before",
        )
        .doing(doing),
    );
}

#[cfg(test)]
mod tests {
    use super::super::tests::{after, codes, judged};
    use super::*;
    use crate::doctor::facts::tests::counts;
    use crate::doctor::finding::Severity::{Critical, Notice, Warning};

    fn with_lacking(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
        after(|facts| {
            counts(facts).under_replicated = 5;
            change(facts);
        })
    }

    #[test]
    fn counts_that_are_not_known_are_a_finding() {
        let found = after(|facts| facts.status.replication = None);
        assert_eq!(judged(&found, Code::ChunksNotCounted), Some((Notice, false)));
    }

    #[test]
    fn missing_chunks_name_lost_nodes_and_how_to_list_the_paths() {
        let found = after(|facts| counts(facts).missing = 2);
        assert_eq!(judged(&found, Code::ChunksMissing), Some((Critical, true)));
        assert!(found[0].todo.contains("`dfs fsck` lists the paths"), "{found:?}");
        assert!(found[0].todo.contains("--delete-lost"), "{found:?}");
        let found = after(|facts| {
            counts(facts).missing = 2;
            facts.status.nodes[0].state = NodeState::Lost;
        });
        assert!(found[0].why.contains("at n1:7080"), "{found:?}");
        assert!(!found[0].todo.contains("--delete-lost"), "it may still come back: {found:?}");
    }

    #[test]
    fn chunks_in_repair_need_no_person() {
        let found = with_lacking(|facts| counts(facts).repairing = 2);
        assert_eq!(judged(&found, Code::UnderReplicated), Some((Warning, false)));
        assert!(found[0].doing.starts_with("2 are being repaired"), "{found:?}");
        let found = with_lacking(|facts| counts(facts).without_spare = 1);
        assert_eq!(judged(&found, Code::UnderReplicated), Some((Critical, false)));
    }

    #[test]
    fn repair_that_is_held_paused_or_without_target_needs_a_person() {
        let held = with_lacking(|facts| {
            facts.status.repair_held = Some("3 of 4 are lost".to_owned());
            facts.status.nodes[1].state = NodeState::Lost;
        });
        assert_eq!(judged(&held, Code::RepairHeld), Some((Warning, true)));
        let lost = facts_id(2);
        assert!(held[0].todo.contains(&format!("dfs node give-up {lost}")), "{held:?}");
        let paused = with_lacking(|facts| {
            facts.status.workers[0].pause_left = Some(Duration::from_mins(5));
        });
        assert_eq!(judged(&paused, Code::RepairPaused), Some((Warning, true)));
        assert!(paused[0].doing.contains("in 5 min"), "{paused:?}");
        let stuck = with_lacking(|facts| {
            counts(facts).without_target = 5;
            facts.status.nodes[2].state = NodeState::Maintenance;
        });
        assert_eq!(judged(&stuck, Code::RepairNoTarget), Some((Warning, true)));
        assert!(stuck[0].why.contains("not available: node"), "{stuck:?}");
        for found in [held, paused] {
            let doing = found.iter().find(|it| it.code == Code::UnderReplicated).unwrap();
            assert!(doing.doing.starts_with("nothing: "), "{found:?}");
        }
    }

    fn facts_id(id: u128) -> dfs_types::NodeId {
        dfs_types::NodeId(id)
    }

    #[test]
    fn pause_of_repair_without_work_is_only_worth_knowing() {
        let found = after(|facts| {
            facts.status.workers[0].pause_left = Some(Duration::from_mins(5));
        });
        assert_eq!(codes(&found), [Code::WorkerPaused]);
    }

    #[test]
    fn backlog_that_does_not_end_needs_a_person_unless_something_else_explains_it() {
        let old = |facts: &mut Facts| counts(facts).degraded = Some(Duration::from_hours(6));
        let found = with_lacking(old);
        assert_eq!(judged(&found, Code::RepairBehind), Some((Warning, true)));
        let young = with_lacking(|facts| counts(facts).degraded = Some(Duration::from_hours(5)));
        assert_eq!(judged(&young, Code::RepairBehind), None);
        let stuck = with_lacking(|facts| {
            old(facts);
            counts(facts).without_target = 5;
        });
        assert_eq!(judged(&stuck, Code::RepairBehind), None);
    }

    #[test]
    fn failing_builds_are_explained_by_their_cause() {
        let found = after(|facts| {
            let of = |node, reaches_no_source| FailingTarget {
                node: dfs_types::NodeId(node),
                rests: Duration::from_secs(3),
                reaches_no_source,
            };
            counts(facts).failing_targets = vec![of(1, true), of(2, false)];
        });
        assert_eq!(codes(&found), [Code::BuildsFail; 2]);
        assert!(found[0].what.contains("at n1:7080") && found[0].doing.contains("in 4 s"));
        assert!(found[0].todo.starts_with("check its network"), "{found:?}");
        assert!(found[1].todo.contains(&format!("dfs node drain {}", dfs_types::NodeId(2))));
    }

    #[test]
    fn damage_is_reported() {
        let found = after(|facts| {
            counts(facts).unreadable_records = 1;
            counts(facts).unreadable_example = "k/1".to_owned();
            counts(facts).bad_replicas = 1;
        });
        assert_eq!(judged(&found, Code::RecordsUnreadable), Some((Critical, true)));
        assert_eq!(judged(&found, Code::BadReplicas), Some((Notice, false)));
    }
}

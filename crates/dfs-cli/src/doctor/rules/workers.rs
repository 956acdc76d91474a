//! The background workers, the scrub of datanodes among them.

use dfs_client::{DiskStatus, WorkerActivity, WorkerStatus};
use dfs_types::{DiskScrub, NodeState, counted};

use crate::doctor::facts::Facts;
use crate::doctor::finding::{Code, Finding};
use crate::output::span_text;

/// The worker of datanodes.
const SCRUB: &str = "scrub";
/// Passes of the scrub after which a disk should have been read whole.
const PASSES: u32 = 2;

pub(super) fn rules(facts: &Facts, found: &mut Vec<Finding>) {
    for worker in &facts.status.workers {
        found.extend(judge(facts, worker));
    }
    scrub(facts, found);
}

fn judge(facts: &Facts, worker: &WorkerStatus) -> Option<Finding> {
    let (name, state) = (&worker.name, &worker.state);
    if let Some(left) = worker.pause_left {
        // Otherwise it is a finding of its own.
        let is_reported = name == "repair" && facts.has_work_for_repair();
        let finding = Finding::notice(Code::WorkerPaused, format!("the worker `{name}` is paused"));
        let finding = finding.doing(format!("the pause ends by itself in {}", span_text(left)));
        return (!is_reported).then(|| finding.todo(format!("`dfs worker resume {name}`")));
    }
    match worker.activity {
        WorkerActivity::BackingOff => Some(
            Finding::warning(Code::WorkerFailing, format!("the worker `{name}` fails"))
                .why(state)
                .doing("it is tried again, with longer pauses")
                .todo("if this lasts, the log of the coordinator that runs it says more"),
        ),
        // Datanodes run the scrub.
        WorkerActivity::Stopped
            if name != SCRUB && !facts.status.worker_lease_holder.is_empty() =>
        {
            Some(
                Finding::warning(Code::WorkerStopped, format!("the worker `{name}` does not run"))
                    .why(state)
                    .todo("if this lasts, restart the coordinator that runs the workers")
                    .needs_person(),
            )
        }
        _ => None,
    }
}

fn scrub(facts: &Facts, found: &mut Vec<Finding>) {
    let nodes = facts.status.nodes.iter().filter(|node| node.state == NodeState::Active);
    let disks: Vec<(&DiskStatus, DiskScrub)> =
        nodes.flat_map(|node| &node.disks).filter_map(|disk| Some((disk, disk.scrub?))).collect();
    let off = disks.iter().filter(|(_, scrub)| scrub.every.is_none()).count() as u64;
    if off > 0 {
        found.push(
            Finding::warning(
                Code::ScrubOff,
                format!("{} not read in the background", match off {
                    1 => "1 disk is".to_owned(),
                    many => format!("{many} disks are"),
                }),
            )
            .why("`scrub_every_ms` of their datanodes is 0: data that nobody reads may rot unnoticed")
            .doing("damage is found only by readers, and on request")
            .todo("`dfs fsck --read` reads everything now; set `scrub_every_ms`"),
        );
    }
    let now = facts.status.now;
    let age = |scrub: &DiskScrub| Some((scrub.every?, now.since(scrub.last?.end)));
    let late = disks.iter().filter_map(|(disk, scrub)| Some((disk, age(scrub)?)));
    let late = late.filter(|(_, (every, age))| *age >= *every * PASSES);
    let Some((oldest, (every, age))) = late.clone().max_by_key(|(_, (_, age))| *age) else {
        return;
    };
    found.push(
        Finding::warning(
            Code::ScrubBehind,
            format!("{} not read whole for too long", counted(late.count() as u64, "disk")),
        )
        .why(format!(
            "every replica is to be read within {}; the last whole pass over disk {} ended {} ago",
            span_text(every),
            oldest.id,
            span_text(age)
        ))
        .doing("the scrub reads on, at most at its rate and a quarter of the time of a disk")
        .todo("`dfs worker list` shows whether it is paused, and its rate; `dfs worker rate scrub 400MiB` raises it")
        .needs_person(),
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dfs_types::{Timestamp, WholePass};

    use super::super::tests::{after, codes, judged};
    use super::*;
    use crate::doctor::facts::tests::NOW;
    use crate::doctor::finding::Severity::{Notice, Warning};

    #[test]
    fn paused_failing_and_stopped_workers_are_named() {
        let with = |change: fn(&mut WorkerStatus)| {
            after(|facts| change(facts.status.workers.get_mut(2).unwrap()))
        };
        let paused = with(|worker| worker.pause_left = Some(Duration::from_secs(5)));
        assert_eq!(judged(&paused, Code::WorkerPaused), Some((Notice, false)));
        assert_eq!(paused[0].todo, "`dfs worker resume reconcile`");
        let failing = with(|worker| {
            worker.activity = WorkerActivity::BackingOff;
            worker.state = "no space".to_owned();
        });
        assert_eq!(judged(&failing, Code::WorkerFailing), Some((Warning, false)));
        assert_eq!(failing[0].why, "no space");
        let stopped = with(|worker| worker.activity = WorkerActivity::Stopped);
        assert_eq!(judged(&stopped, Code::WorkerStopped), Some((Warning, true)));
        let not_begun = after(|facts| facts.status.workers[3].activity = WorkerActivity::Stopped);
        assert_eq!(codes(&not_begun), [], "datanodes begin to scrub a little later");
    }

    #[test]
    fn scrub_that_is_off_or_behind_is_reported() {
        let with = |every: Option<u64>, age_h: u64| {
            after(|facts| {
                let end = Timestamp::from_millis(NOW.millis() - age_h * 3_600_000);
                let last = Some(WholePass { end, bytes: 1, errors: 0 });
                let every = every.map(Duration::from_hours);
                facts.status.nodes[0].disks[0].scrub =
                    Some(DiskScrub { last, every, ..DiskScrub::default() });
            })
        };
        assert_eq!(judged(&with(None, 0), Code::ScrubOff), Some((Warning, false)));
        assert_eq!(with(Some(24), 47), []);
        assert_eq!(judged(&with(Some(24), 48), Code::ScrubBehind), Some((Warning, true)));
    }
}

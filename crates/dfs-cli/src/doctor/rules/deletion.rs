//! Deletion, and the comparison of disks with the metadata that it depends on.

use std::time::Duration;

use dfs_types::{ByteSize, counted};

use crate::doctor::facts::Facts;
use crate::doctor::finding::{Code, Finding};
use crate::output::span_text;

/// Age of the last whole comparison from which on it is too old: one is made once a day.
const COMPARED_WITHIN: Duration = Duration::from_hours(48);

pub(super) fn rules(facts: &Facts, found: &mut Vec<Finding>) {
    if let Ok(gc) = &facts.gc
        && !gc.may_delete()
    {
        let why = match &gc.hold {
            Some(hold) => format!("commits of the metadata were lost: {}", hold.reason),
            None => "the metadata was restored or migrated".to_owned(),
        };
        let (doomed, bytes) = (counted(gc.doomed, "replica"), ByteSize(gc.doomed_bytes));
        found.push(
            Finding::warning(
                Code::DeletionHeld,
                format!("nothing is deleted: {doomed} ({bytes}) wait for permission"),
            )
            .why(why)
            .doing("files are written, read and repaired as usual; deleted ones keep their space")
            .todo(
                "`dfs fsck` shows what no file needs; if the metadata is the right one, \
                 `dfs gc acknowledge`",
            )
            .needs_person(),
        );
    }
    let compared = &facts.status.reconciliation;
    match compared.last_whole {
        _ if facts.status.worker_lease_holder.is_empty() => {}
        None => found.push(
            Finding::notice(
                Code::ComparisonUnknown,
                "it is not known when all disks were last compared with the metadata",
            )
            .why("the coordinator that does the background work has just started, or a disk is not in service")
            .doing(match compared.progress {
                Some(records) => format!("a comparison is running; {records} chunks so far"),
                None => "they are compared soon after datanodes have registered, and once a day".to_owned(),
            })
            .todo("`dfs fsck` compares them now"),
        ),
        Some(ago) if ago >= COMPARED_WITHIN => found.push(
            Finding::warning(
                Code::ComparisonOld,
                format!("all disks were last compared with the metadata {} ago", span_text(ago)),
            )
            .why("a disk or datanode was out of service, or the worker `reconcile` is paused or fails")
            .doing("until a whole comparison, lost replicas may stay unnoticed, and orphans are kept")
            .todo("bring back what is out of service; `dfs fsck` compares now and says what it skipped")
            .needs_person(),
        ),
        Some(_) => {}
    }
    if compared.orphans > 0 {
        found.push(
            Finding::notice(
                Code::Orphans,
                format!(
                    "{} ({}) are of no file",
                    counted(compared.orphans, "replica"),
                    ByteSize(compared.orphan_bytes)
                ),
            )
            .why("left by interrupted uploads, or by disks that came back")
            .doing("they are deleted once two comparisons, a day apart, have proven that none is needed")
            .todo("`dfs gc status` lists them"),
        );
    }
}

#[cfg(test)]
mod tests {
    use dfs_client::GcStatus;
    use dfs_types::Incarnation;

    use super::super::tests::{after, judged};
    use super::*;
    use crate::doctor::finding::Severity::{Notice, Warning};

    #[test]
    fn deletion_after_a_restore_waits_for_a_person() {
        let found = after(|facts| {
            let mut gc = GcStatus::new(Incarnation(1));
            gc.incarnation = Incarnation(2);
            facts.gc = Ok(gc);
        });
        assert_eq!(judged(&found, Code::DeletionHeld), Some((Warning, true)));
        assert!(found[0].todo.contains("`dfs gc acknowledge`"), "{found:?}");
    }

    #[test]
    fn comparison_is_too_old_after_two_days_and_unknown_before_the_first() {
        let with = |last: Option<u64>| {
            after(|facts| facts.status.reconciliation.last_whole = last.map(Duration::from_hours))
        };
        assert_eq!(with(Some(47)), []);
        assert_eq!(judged(&with(Some(48)), Code::ComparisonOld), Some((Warning, true)));
        assert_eq!(judged(&with(None), Code::ComparisonUnknown), Some((Notice, false)));
    }

    #[test]
    fn orphans_are_deleted_without_a_person() {
        let found = after(|facts| facts.status.reconciliation.orphans = 3);
        assert_eq!(judged(&found, Code::Orphans), Some((Notice, false)));
    }
}

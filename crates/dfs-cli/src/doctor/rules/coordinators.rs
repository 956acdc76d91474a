//! Coordinators, the holder of the worker lease, clocks, and what could not be asked.

use std::time::Duration;

use crate::doctor::facts::{Coordinator, Facts, Reply};
use crate::doctor::finding::{Code, Finding};
use crate::output::span_text;

/// Difference of two clocks from which on it is reported.
const CLOCKS_DIFFER: Duration = Duration::from_mins(1);

/// Why the status of a cluster is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreached {
    /// No coordinator replied as it should.
    Silent,
    /// A coordinator waits for its cluster.
    Uninitialised,
    /// The metadata engine of a coordinator fails.
    MetadataFailed,
}

/// Returns the finding of a cluster of which no coordinator returned the status.
pub(crate) fn unreachable(why: &str, reason: Unreached) -> Finding {
    let finding = match reason {
        Unreached::Silent => Finding::critical(
            Code::CoordinatorUnreachable,
            "no coordinator replies: no file can be opened or written, and nothing else could be \
             checked",
        )
        .todo(
            "start it, or name another one with --coordinator; if it does not start, its log says \
             why, and `dfs doctor --offline URL` examines its metadata store",
        ),
        Unreached::Uninitialised => Finding::critical(
            Code::CoordinatorUninitialised,
            "the coordinator waits for its cluster to be created",
        )
        .todo(
            "in Kubernetes the operator creates it: see its log; otherwise stop the coordinator and \
             run `dfs coordinator init`. If there was a cluster, this is the wrong metadata store",
        ),
        Unreached::MetadataFailed => Finding::critical(
            Code::MetadataFailed,
            "the metadata store fails: no file can be opened or written, and nothing else could be \
             checked",
        )
        .doing("the coordinator tries again with each call")
        .todo(
            "bring etcd back to a majority, or the disk of the store back into order; if the store \
             is damaged, stop the coordinator and run `dfs doctor --offline URL`",
        ),
    };
    finding.why(why).needs_person()
}

pub(super) fn rules(facts: &Facts, found: &mut Vec<Finding>) {
    for Coordinator { address, reply } in &facts.coordinators {
        match reply {
            Err(why) => found.push(
                Finding::warning(
                    Code::CoordinatorUnreachable,
                    format!("coordinator {address} does not reply"),
                )
                .why(why)
                .doing("the others serve all calls")
                .todo("start it again; its log says why it stopped"),
            ),
            Ok(Reply { cluster, .. }) if *cluster != facts.status.cluster => found.push(
                Finding::critical(
                    Code::ClustersDiffer,
                    format!("coordinator {address} is of another cluster: {cluster}"),
                )
                .why(format!(
                    "the others are of cluster {}, which was examined",
                    facts.status.cluster
                ))
                .todo("name only coordinators of one cluster, or give it the metadata of its own")
                .needs_person(),
            ),
            Ok(Reply { ahead_ms, .. }) => found.extend(clock(address, *ahead_ms)),
        }
    }
    if facts.status.worker_lease_holder.is_empty() {
        found.push(
            Finding::critical(
                Code::NoLeaseHolder,
                "no coordinator does the background work: nothing is repaired, moved or deleted",
            )
            .why(
                "no coordinator holds the worker lease, or the one that does is not reached by the \
                 others",
            )
            .doing("each coordinator tries to take the lease again and again")
            .todo("see the logs of the coordinators, and restart those that do not reply")
            .needs_person(),
        );
    }
    let (gc, upgrade) = (facts.gc.as_ref().err(), facts.upgrade.as_ref().err());
    let moves = facts.moves.iter().filter_map(|(what, plan)| Some((what, plan.as_ref().err()?)));
    let unchecked = gc.map(|why| ("whether anything may be deleted".to_owned(), why));
    let unchecked = unchecked
        .into_iter()
        .chain(upgrade.map(|why| ("the write level".to_owned(), why)))
        .chain(moves.map(|(what, why)| (format!("whether {what} can be emptied"), why)));
    for (what, why) in unchecked {
        found.push(
            Finding::warning(Code::Unchecked, format!("not known: {what}"))
                .why(why)
                .todo(
                    "run `dfs doctor` again; see the log of the coordinator if that does not help",
                )
                .needs_person(),
        );
    }
}

fn clock(address: &str, ahead_ms: i64) -> Option<Finding> {
    let difference = Duration::from_millis(ahead_ms.unsigned_abs());
    if difference < CLOCKS_DIFFER {
        return None;
    }
    let coordinator = match address {
        "" => "the coordinator".to_owned(),
        address => format!("coordinator {address}"),
    };
    let (by, way) = (span_text(difference), if ahead_ms > 0 { "ahead of" } else { "behind" });
    let finding = Finding::warning(
        Code::ClockDiffers,
        format!("the clock of {coordinator} is {by} {way} the clock here"),
    );
    let why = "a wrong clock loses nothing, but deleted files expire at the wrong time, and uploads \
               may fail with STALE";
    Some(
        finding
            .why(why)
            .todo("set the wrong one of both clocks, for example by NTP")
            .needs_person(),
    )
}

#[cfg(test)]
mod tests {
    use dfs_types::ClusterId;

    use super::super::tests::{after, codes, judged};
    use super::*;
    use crate::doctor::Emptying;
    use crate::doctor::finding::Severity::{Critical, Warning};

    #[test]
    fn coordinator_that_does_not_reply_is_named() {
        let all = unreachable("coordinator http://a:1: refused", Unreached::Silent);
        assert_eq!((all.code, all.needs_person), (Code::CoordinatorUnreachable, true));
        assert!(all.why.contains("http://a:1: refused"), "{all:?}");
        let uninitialised = unreachable("", Unreached::Uninitialised);
        assert_eq!(uninitialised.code, Code::CoordinatorUninitialised);
        assert_eq!(unreachable("", Unreached::MetadataFailed).code, Code::MetadataFailed);
        let one = after(|facts| {
            let reply = Err("refused".to_owned());
            facts.coordinators.push(Coordinator { address: "d:1".to_owned(), reply });
        });
        assert_eq!(judged(&one, Code::CoordinatorUnreachable), Some((Warning, false)));
        assert!(one[0].what.contains("d:1"), "{one:?}");
    }

    #[test]
    fn missing_lease_holder_needs_a_person() {
        let found = after(|facts| facts.status.worker_lease_holder.clear());
        assert_eq!(judged(&found, Code::NoLeaseHolder), Some((Critical, true)));
    }

    /// Returns what is found if the coordinator gives this reply.
    fn with(cluster: ClusterId, ahead_ms: i64) -> Vec<Finding> {
        after(|facts| facts.coordinators[0].reply = Ok(Reply { cluster, ahead_ms }))
    }

    #[test]
    fn coordinator_of_another_cluster_is_named() {
        let found = with(ClusterId(2), 0);
        assert_eq!(judged(&found, Code::ClustersDiffer), Some((Critical, true)));
        assert!(found[0].what.contains("c:7070"), "{found:?}");
    }

    #[test]
    fn clock_is_reported_if_it_is_a_minute_off_in_either_direction() {
        for (ahead_ms, is_found) in [(59_000, false), (60_000, true), (-60_000, true), (-1, false)]
        {
            let found = with(ClusterId(1), ahead_ms);
            assert_eq!(!found.is_empty(), is_found, "{ahead_ms}: {found:?}");
        }
        let behind = with(ClusterId(1), -120_000);
        assert!(behind[0].what.contains("2 min behind"), "{behind:?}");
    }

    #[test]
    fn what_could_not_be_checked_is_never_taken_for_fine() {
        let failed = |what: &str| Err(what.to_owned());
        let found = after(|facts| {
            facts.gc = Err("gc".to_owned());
            facts.upgrade = Err("upgrade".to_owned());
            let disk = Emptying { node: dfs_types::NodeId(1), disk: None };
            facts.moves = vec![(disk, failed("plan"))];
        });
        assert_eq!(codes(&found), [Code::Unchecked; 3]);
        assert!(found.iter().all(|finding| finding.needs_person));
    }
}

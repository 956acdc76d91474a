//! Waiting until repair has dealt with what a comparison found.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_client::{ClusterStatus, ExplainedChunk};
use dfs_types::{ErrorCode, NodeId, ReplicaHealth, counted};
use tokio::time::{Instant, sleep};

use super::DamagedFile;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::span_text;

/// Interval of asking for progress.
const POLL: Duration = Duration::from_secs(1);
/// Times in a row that repair has to be found stuck: it tries again and again.
const STUCK_TIMES: u32 = 3;

/// What becomes of chunks that lack replicas.
#[derive(Debug, PartialEq, Eq)]
enum Outlook {
    /// They are repaired, or may be.
    Working,
    /// None is left that can be repaired.
    Done,
    /// None is repaired at present.
    Stuck(String),
}

/// What became of a damaged file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Repaired {
    /// Damaged chunks that are not repaired.
    pub(super) left: u64,
    /// Why not, for people; empty if none is left.
    pub(super) why: String,
}

/// Waits, at most for `within`, until repair has nothing left that it can do. Sets what became of each
/// file.
pub(super) async fn wait(
    damaged: &mut [DamagedFile],
    within: Duration,
    cx: &Context,
) -> Result<()> {
    let admin = cx.client.admin();
    let (until, mut stuck, mut shown) = (Instant::now() + within, 0, String::new());
    let why = loop {
        let status = admin.status().await?;
        match outlook(&status) {
            Outlook::Done => break String::new(),
            Outlook::Stuck(why) if stuck + 1 >= STUCK_TIMES => break why,
            Outlook::Stuck(_) => stuck += 1,
            Outlook::Working => stuck = 0,
        }
        if Instant::now() >= until {
            break format!("not repaired within {}", span_text(within));
        }
        let repair = status.workers.iter().find(|worker| worker.name == "repair");
        if let Some(worker) = repair.filter(|worker| worker.state != shown) {
            shown.clone_from(&worker.state);
            cx.out.say(&shown);
        }
        sleep(POLL).await;
    };
    for file in damaged {
        file.repaired = Some(judge_file(file, &why, cx).await?);
    }
    Ok(())
}

fn outlook(status: &ClusterStatus) -> Outlook {
    let Some(counts) = &status.replication else { return Outlook::Working };
    if counts.under_replicated + counts.bad_replicas == 0 {
        return Outlook::Done;
    }
    let repair = status.workers.iter().find(|worker| worker.name == "repair");
    if let Some(held) = &status.repair_held {
        return Outlook::Stuck(held.clone());
    }
    match repair.and_then(|worker| worker.pause_left) {
        Some(left) if counts.repairing == 0 => Outlook::Stuck(format!(
            "repair is paused for {} more; `dfs worker resume repair` ends that",
            span_text(left)
        )),
        None if counts.repairing == 0
            && counts.under_replicated > 0
            && counts.without_target >= counts.under_replicated =>
        {
            Outlook::Stuck(
                "no datanode can take a replica: each has one already or is full; add datanodes, or \
                 start those that are down"
                    .to_owned(),
            )
        }
        _ => Outlook::Working,
    }
}

async fn judge_file(file: &DamagedFile, why: &str, cx: &Context) -> Result<Repaired> {
    let all = file.missing + file.degraded;
    let Some(path) = &file.path else {
        let why = "it has no name any more, so that its chunks cannot be looked up".to_owned();
        return Ok(Repaired { left: all, why });
    };
    let found = match cx.client.explain(path, false).await {
        // Whatever was damaged is not needed any more.
        Err(error) if matches!(error.code(), ErrorCode::NotFound) => return Ok(Repaired::default()),
        found => found.map_err(Error::from)?,
    };
    let damaged = found.chunks.iter().filter(|chunk| file.chunks.contains(&chunk.chunk));
    // A chunk may be in several pieces of the file.
    let faults = damaged.filter_map(|chunk| Some((chunk.chunk, fault(chunk)?)));
    let mut faults: Vec<_> = faults.collect();
    faults.sort();
    faults.dedup_by_key(|(chunk, _)| *chunk);
    let left = faults.len() as u64;
    let missing = faults.iter().filter(|(_, fault)| *fault == Fault::Missing).count() as u64;
    let mut parts = Vec::new();
    if missing > 0 {
        let chunks = counted(missing, "chunk");
        parts.push(format!("no replica of {chunks} can be reached: bring back the disks"));
    }
    if left > missing {
        parts.push(if why.is_empty() { "being repaired" } else { why }.to_owned());
    }
    Ok(Repaired { left, why: parts.join("; ") })
}

/// What a chunk lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Missing,
    Degraded,
}

/// Returns what a chunk lacks; `None` if it has all its replicas, and none is bad.
fn fault(chunk: &ExplainedChunk) -> Option<Fault> {
    let durable = chunk.replicas.iter().filter(|replica| replica.health.is_durable());
    let nodes: BTreeSet<NodeId> = durable.map(|replica| replica.node).collect();
    let has_bad = chunk.replicas.iter().any(|replica| replica.health == ReplicaHealth::Bad);
    match nodes.len() {
        0 => Some(Fault::Missing),
        have if have < chunk.wanted as usize || has_bad => Some(Fault::Degraded),
        _ => None,
    }
}

/// Returns the failure of a command whose files are not all repaired; `Ok` if they are.
pub(super) fn result(damaged: &[DamagedFile]) -> Result<()> {
    let left = damaged.iter().filter_map(|file| file.repaired.as_ref()).filter(|it| it.left > 0);
    let left: Vec<&Repaired> = left.collect();
    let Some(first) = left.first() else { return Ok(()) };
    let files = counted(left.len() as u64, "file");
    let message = format!("{files} could not be repaired: {}", first.why);
    Err(Error::new(ErrorCode::Unavailable, message).hint("`dfs doctor` says what to do"))
}

#[cfg(test)]
mod tests {
    use dfs_client::{ExplainedReplica, ReplicationStatus, WorkerStatus};
    use dfs_types::{ChunkId, ClusterId, DiskId};

    use super::*;

    #[test]
    fn repair_is_stuck_only_if_nothing_is_left_that_it_can_do() {
        let with = |change: fn(&mut ClusterStatus, &mut ReplicationStatus)| {
            let mut status = ClusterStatus::new(ClusterId(1));
            status.workers = vec![WorkerStatus::new("repair")];
            let mut counts = ReplicationStatus::default();
            counts.under_replicated = 2;
            change(&mut status, &mut counts);
            status.replication = Some(counts);
            outlook(&status)
        };
        let is_stuck = |outlook: Outlook, why: &str| match outlook {
            Outlook::Stuck(found) => assert!(found.contains(why), "{found}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(outlook(&ClusterStatus::new(ClusterId(1))), Outlook::Working, "not counted");
        assert_eq!(with(|_, _| {}), Outlook::Working);
        assert_eq!(with(|_, counts| counts.under_replicated = 0), Outlook::Done);
        let bad = with(|_, counts| (counts.under_replicated, counts.bad_replicas) = (0, 1));
        assert_eq!(bad, Outlook::Working);
        assert_eq!(with(|_, counts| counts.without_target = 1), Outlook::Working, "the other");
        is_stuck(with(|_, counts| counts.without_target = 2), "no datanode can take");
        is_stuck(with(|status, _| status.workers[0].pause_left = Some(POLL)), "is paused");
        let finishing = |status: &mut ClusterStatus, counts: &mut ReplicationStatus| {
            status.workers[0].pause_left = Some(POLL);
            counts.repairing = 1;
        };
        assert_eq!(with(finishing), Outlook::Working, "repairs in flight finish");
        is_stuck(with(|status, _| status.repair_held = Some("held".to_owned())), "held");
    }

    #[test]
    fn chunk_is_repaired_once_it_has_its_replicas_on_distinct_nodes_and_none_is_bad() {
        use ReplicaHealth::{Bad, Gone, Good, Lost, Suspect};
        let of = |replicas: &[(u128, ReplicaHealth)]| {
            let replica = |(node, health): &(u128, ReplicaHealth)| ExplainedReplica {
                node: NodeId(*node),
                disk: DiskId(*node),
                address: String::new(),
                state: None,
                health: *health,
                verified: None,
                problem: None,
            };
            fault(&ExplainedChunk {
                chunk: ChunkId(1),
                file_offset: 0,
                length: 1,
                wanted: 2,
                replicas: replicas.iter().map(replica).collect(),
            })
        };
        assert_eq!(of(&[(1, Good), (2, Suspect), (3, Gone)]), None);
        assert_eq!(of(&[(1, Good), (1, Good)]), Some(Fault::Degraded));
        assert_eq!(of(&[(1, Good), (2, Lost)]), Some(Fault::Degraded));
        assert_eq!(of(&[(1, Good), (2, Good), (3, Bad)]), Some(Fault::Degraded));
        assert_eq!(of(&[(1, Lost), (2, Bad)]), Some(Fault::Missing));
        assert_eq!(of(&[]), Some(Fault::Missing));
    }
}

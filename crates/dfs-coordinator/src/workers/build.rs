//! Building a replica at a node that may already have others of the chunk.

use std::collections::BTreeMap;

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Replica};
use dfs_types::{ChunkId, ErrorCode, NodeId, ReplicaRef, Scope};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::build_slots::{BuildSlot, Failing, FailureCause};
use crate::core::Core;
use crate::workers::orders::{self, Build, BuildOrder, BuildOutcome, Built, FailedSource};

/// Attempts to build a replica at a node that has others.
const TRIES: u32 = 8;

/// Builds a replica of a chunk, which the worker has claimed, at a node. `None` when that failed. The
/// slot is held until then.
pub(super) async fn build(
    (core, lease): (&Core, &LeaseGrant),
    (target, slot): (NodeId, BuildSlot),
    (chunk, record): (ChunkId, &Chunk),
    sources: &[(NodeId, ReplicaRef)],
    mut replaces: Vec<ReplicaRef>,
) -> Option<Built> {
    let (seal, generation) = (record.seal, record.generation);
    // Again for each replica that was not expected there, one on each disk.
    for _ in 0..TRIES {
        let order = BuildOrder { chunk, seal, generation, sources, replaces: &replaces };
        let build = match orders::build(core, lease, target, &order).await {
            Ok(build) => build,
            Err(failure) => {
                // An earlier order, whose reply was lost, still builds it.
                if failure.code != ErrorCode::AlreadyExists {
                    slot.target_failed(Instant::now());
                }
                warn!(%chunk, %target, %failure, "a replica could not be built");
                return None;
            }
        };
        for FailedSource { node: source, why, .. } in &build.failed {
            warn!(%chunk, %target, %source, why, "a source of a replica failed");
        }
        note(&slot, target, sources, &build, Instant::now());
        match build.outcome? {
            BuildOutcome::Built(built) => return Some(built),
            BuildOutcome::Existing(found) => {
                if replaces.contains(&found) || !may_replace(core, chunk, found, target).await {
                    return None;
                }
                info!(%chunk, %target, "replacing a replica that no record names");
                replaces.push(found);
            }
        }
    }
    None
}

/// Notes what a build says of its target.
fn note(
    slot: &BuildSlot,
    target: NodeId,
    sources: &[(NodeId, ReplicaRef)],
    build: &Build,
    now: Instant,
) {
    let failed: Vec<&FailedSource> = build.failed.iter().filter(|it| it.node != target).collect();
    match &build.outcome {
        Some(outcome) => {
            slot.target_works();
            // Sources are tried in this order until one provides the rest.
            let from = sources.iter().find(|(node, _)| failed.iter().all(|it| it.node != *node));
            if let (BuildOutcome::Built(_), Some((source, _))) = (outcome, from) {
                slot.target_built_from(*source);
            }
        }
        // One that replied is at fault itself.
        None if failed.is_empty() || failed.iter().any(|it| !it.is_unavailable) => {}
        None => {
            let unreached: Vec<NodeId> = failed.iter().map(|it| it.node).collect();
            slot.target_reached_none(&unreached, now);
        }
    }
}

/// Names the nodes where builds fail, with the time until the next attempt and what to do. `what`
/// fails there.
pub(super) fn describe_failing(what: &str, failing: &BTreeMap<NodeId, Failing>) -> Option<String> {
    let (node, Failing { left, cause }) = failing.iter().max_by_key(|(_, it)| it.left)?;
    let others = match failing.len() - 1 {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    let advice = match cause {
        FailureCause::Own => {
            "the logs of the node and of this coordinator say why; repair its disks, or drain it"
        }
        FailureCause::Unreached => {
            "it gets a replica from none of the datanodes to build from; its logs say why: check its network and theirs"
        }
    };
    let seconds = left.as_secs() + 1;
    Some(format!("{what} node {node}{others} fail, the next attempt is in {seconds} s: {advice}"))
}

/// Returns whether a replica that a node holds may be replaced by one that was built there: it was
/// left by an interrupted repair, move or upload, or is to be deleted.
async fn may_replace(core: &Core, chunk: ChunkId, found: ReplicaRef, node: NodeId) -> bool {
    // The record is read after the replica was found: only the worker with the claim adds replicas.
    let records = core.namespace.chunks(Scope::internal(), &[chunk]).await;
    let record = records.ok().and_then(|records| records.into_iter().flatten().next());
    let Some(record) = record.filter(|record| !record.is_tombstone()) else { return false };
    let Ok(disks) = core.namespace.disks_of([&record]).await else { return false };
    let is_found = |replica: &&Replica| {
        let at = disks.get(replica.disk);
        replica.stamp == found.stamp
            && at.is_some_and(|at| (at.node, at.disk) == (node, found.disk))
    };
    record.replicas.iter().find(is_found).is_none_or(|replica| !replica.is_sound())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dfs_types::{
        Crc32c, DiskId, Generation, Part, ReadProof, Receipt, RegistrationNumber, Seal, Stamp,
    };

    use super::*;
    use crate::build_slots::{BuildEnd, BuildQuota, BuildSlots};

    const QUOTA: BuildQuota = BuildQuota::of(16);
    const SOURCES: [u128; 2] = [1, 2];

    fn replica(node: u128) -> ReplicaRef {
        let (chunk, disk) = (ChunkId(9), DiskId(node));
        ReplicaRef { chunk, part: Part::WHOLE, disk, stamp: Stamp(1) }
    }

    fn built(node: u128) -> BuildOutcome {
        let (node, replica, seal) = (NodeId(node), replica(node), Seal([0; 32]));
        let registration = RegistrationNumber(1);
        let ReplicaRef { chunk, part, disk, stamp } = replica;
        let (length, crc32c) = (5, Crc32c(1));
        let receipt =
            Receipt { chunk, part, length, crc32c, node, disk, stamp, registration, seal };
        let proof = ReadProof { replica, generation: Generation(1), node, registration, seal };
        BuildOutcome::Built(Built { receipt, proof })
    }

    /// Builds at a target, with this outcome, and failed sources of which some are unavailable.
    /// Returns how long the target rests then.
    fn rest_after(
        slots: &BuildSlots,
        target: u128,
        outcome: Option<BuildOutcome>,
        failed: &[(u128, bool)],
        now: Instant,
    ) -> u128 {
        let slot = slots.take((NodeId(target), QUOTA), None, 1, now).unwrap();
        let failed = failed.iter().map(|(node, is_unavailable)| FailedSource {
            node: NodeId(*node),
            is_unavailable: *is_unavailable,
            why: String::new(),
        });
        let build = Build { outcome, failed: failed.collect() };
        let sources = SOURCES.map(|node| (NodeId(node), replica(node)));
        note(&slot, NodeId(target), &sources, &build, now);
        slots.failing(now).get(&NodeId(target)).map_or(0, |failing| failing.left.as_millis())
    }

    #[test]
    fn build_without_a_source_counts_neither_as_a_failure_nor_as_a_success_of_the_target() {
        let (slots, now) = (BuildSlots::default(), Instant::now());
        let room = |now| slots.room(BuildEnd::target(NodeId(3)), QUOTA, now);
        for failed in [&[(1, true)][..], &[(1, false), (2, true)], &[(3, false), (1, true)], &[]] {
            assert_eq!(rest_after(&slots, 3, None, failed, now), 0, "{failed:?}");
            assert_eq!(room(now), 16, "no failure");
        }
        slots.take((NodeId(3), QUOTA), None, 1, now).unwrap().target_failed(now);
        let now = now + Duration::from_secs(1);
        assert_eq!(rest_after(&slots, 3, None, &[(1, true)], now), 0);
        assert_eq!(room(now), 1, "still one at a time");
        rest_after(&slots, 3, Some(BuildOutcome::Existing(replica(3))), &[], now);
        assert_eq!(room(now), 16);
    }

    #[test]
    fn target_that_reaches_no_source_rests_ever_longer_and_is_described() {
        let (slots, mut now) = (BuildSlots::default(), Instant::now());
        // Its own replica says nothing of its network.
        let unreached = [(3, false), (1, true), (2, true)];
        for rest in [250, 500, 1_000] {
            assert_eq!(rest_after(&slots, 3, None, &unreached, now), rest);
            let text = describe_failing("builds at", &slots.failing(now)).unwrap();
            assert!(text.contains(&format!("builds at node {} fail", NodeId(3))), "{text}");
            assert!(text.contains("check its network and theirs"), "{text}");
            now += Duration::from_secs(2);
        }
        assert_eq!(rest_after(&slots, 3, None, &[(3, false)], now), 0, "no source was asked");
        assert_eq!(rest_after(&slots, 3, Some(built(3)), &[], now), 0);
        assert_eq!(describe_failing("builds at", &slots.failing(now)), None);
    }

    #[test]
    fn target_is_at_fault_once_another_one_builds_from_its_source() {
        let (slots, now) = (BuildSlots::default(), Instant::now());
        assert_eq!(rest_after(&slots, 3, None, &[(1, true)], now), 0);
        rest_after(&slots, 4, Some(built(4)), &[(1, true)], now);
        assert_eq!(rest_after(&slots, 3, None, &[(1, true)], now), 0, "it built from the other");
        rest_after(&slots, 4, Some(built(4)), &[], now);
        assert_eq!(rest_after(&slots, 3, None, &[(1, true)], now), 250);
        slots.take((NodeId(4), QUOTA), None, 1, now).unwrap().target_failed(now);
        let text = describe_failing("builds at", &slots.failing(now)).unwrap();
        assert!(text.contains("(and 1 more)"), "{text}");
    }
}

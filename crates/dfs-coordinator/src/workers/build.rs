//! Building a replica at a node that may already have others of the chunk.

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Replica};
use dfs_types::{ChunkId, NodeId, ReplicaRef, Scope};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::build_slots::BuildSlot;
use crate::core::Core;
use crate::workers::orders::{self, BuildOrder, BuildOutcome, Built};

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
                slot.target_failed(Instant::now());
                warn!(%chunk, %target, %failure, "a replica could not be built");
                return None;
            }
        };
        for (source, why) in build.failed {
            warn!(%chunk, %target, %source, why, "a source of a replica failed");
        }
        // Without an outcome no source delivered, which says nothing about the target.
        let outcome = build.outcome?;
        slot.target_works();
        match outcome {
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

//! Dooming replicas that are not needed.

use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::{Chunk, Doom, Evidence, ReplicaId};
use dfs_types::{ChunkId, NodeId, Scope, build_weight};
use tokio::time::Instant;
use tracing::warn;

use super::WORKER_LEASE;
use super::moves::ROOM_WITHIN;
use super::orders;
use super::repair::is_overtaken;
use crate::Error;
use crate::build_slots::{BuildQuota, BuildSlot, BuildSlots};
use crate::core::Core;
use crate::verdicts;

/// Outcome of dooming replicas.
#[derive(Debug)]
pub(super) enum Doomed {
    /// They are doomed, in this record.
    Done(Chunk),
    /// The chunk, or what it needs, has changed; another attempt decides anew.
    Changed,
    /// None of the replicas that are kept was read, for this reason.
    Unread(String),
}

/// Dooms replicas of a chunk, which the worker has claimed and whose read it has paid for, once one of
/// `kept` was read end to end since the record was read; the first that can be is read. That may take
/// minutes, so nothing is doomed unless it `is_still_right` then.
pub(super) async fn doom(
    (core, lease): (&Core, &LeaseGrant),
    (chunk, record): (ChunkId, &Chunk),
    doomed: &[ReplicaId],
    kept: &[ReplicaId],
    is_still_right: impl Fn() -> bool + Send,
) -> Result<Doomed, Error> {
    let (namespace, fence) = (&core.namespace, lease.fence(WORKER_LEASE));
    let (scope, fence) = (Scope::internal(), Some(&fence));
    let disks = namespace.disks_of([record]).await;
    let disks = disks.map_err(Error::metadata("reading the disks of a chunk"))?;
    let mut unread = "no other replica is known".to_owned();
    for replica in kept {
        let Some(at) = disks.get(replica.disk) else { continue };
        let (node, name) = (at.node, orders::replica_ref(chunk, *replica, at.disk));
        let quota = || core.registry().build_quota(node);
        let weight = build_weight(record.seal.length);
        let Some(_slot) = begin_read(&core.background.builds, node, quota, weight).await else {
            unread = format!("node {node} has no room to read another replica");
            continue;
        };
        match orders::verify(core, node, name, record).await {
            Ok((_, Some(_))) if !is_still_right() => return Ok(Doomed::Changed),
            Ok((_, Some(proof))) => {
                let doom = Some(Doom { replicas: doomed, kept: &proof });
                let swapped =
                    namespace.swap_replicas(scope, chunk, record.generation, &[], doom, fence);
                match swapped.await {
                    Ok(record) => return Ok(Doomed::Done(record)),
                    Err(error) if is_overtaken(&error) => return Ok(Doomed::Changed),
                    // The node is being removed, for instance; another replica may do.
                    Err(error @ dfs_metadata::Error::BadProof { .. }) => {
                        warn!(%chunk, %node, %error, "a verified replica does not count");
                        unread = format!("the replica on node {node} does not count: {error}");
                    }
                    Err(error) => return Err(Error::metadata("dooming replicas")(error)),
                }
            }
            Ok((verdict, None)) => {
                let evidence = Evidence::ReadAgain;
                let marked = namespace.mark_replica(scope, node, verdict, evidence, fence).await;
                let marked = marked.map_err(Error::metadata("recording a verdict"))?;
                verdicts::note(core, node, verdict, &marked);
                return Ok(Doomed::Changed);
            }
            Err(failure) => {
                warn!(%chunk, %node, %failure, "a replica could not be verified");
                unread = format!("node {node} could not read another replica: {failure}");
            }
        }
    }
    Ok(Doomed::Unread(unread))
}

/// Waits until a replica of this weight may be read at its node; `None` if the node has no `quota`, as
/// it is not known here, or has no room for long.
async fn begin_read(
    slots: &BuildSlots,
    node: NodeId,
    quota: impl Fn() -> Option<BuildQuota> + Send,
    weight: u32,
) -> Option<BuildSlot> {
    let until = Instant::now() + ROOM_WITHIN;
    while Instant::now() < until {
        match slots.read((node, quota()?), weight, Instant::now()) {
            Ok(slot) => return Some(slot),
            Err(end) => slots.wait(end).await,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::build_slots::BuildEnd;

    const NODE: NodeId = NodeId(1);
    const QUOTA: BuildQuota = BuildQuota::of(16);

    #[tokio::test(start_paused = true)]
    async fn read_waits_for_room_at_its_node_and_gives_up_after_a_while() {
        let slots = BuildSlots::default();
        let quota = || Some(QUOTA);
        let busy = slots.take((NodeId(2), QUOTA), Some((NODE, QUOTA)), 16, Instant::now()).unwrap();
        let began = Instant::now();
        assert!(begin_read(&slots, NODE, quota, 1).await.is_none());
        let waited = began.elapsed();
        assert!(
            (ROOM_WITHIN..ROOM_WITHIN + Duration::from_secs(2)).contains(&waited),
            "{waited:?}"
        );
        assert_eq!(slots.room(BuildEnd::source(NODE), QUOTA, Instant::now()), 0);
        let ends = async {
            sleep(ROOM_WITHIN / 2).await;
            drop(busy);
        };
        let began = Instant::now();
        let (read, ()) = tokio::join!(begin_read(&slots, NODE, quota, 1), ends);
        assert!(read.is_some() && began.elapsed() < ROOM_WITHIN / 2 + Duration::from_secs(1));
        assert_eq!(slots.room(BuildEnd::source(NODE), QUOTA, Instant::now()), 15);
        assert!(begin_read(&slots, NODE, || None, 1).await.is_none(), "an unknown node");
    }
}

//! The calls about deletion.

use dfs_metadata::namespace::{Chunk, Namespace};
use dfs_proto::{Failure, v1};
use dfs_transport::Caller;
use dfs_types::Incarnation;
use tracing::info;

use super::admin::check_cluster;
use crate::core::Core;
use crate::failure;

/// Chunks counted at most.
const COUNTED_MAX: usize = 100_000;

pub(super) async fn status(
    core: &Core,
    (caller, _): (Caller, v1::GcStatusRequest),
) -> Result<v1::GcStatusResponse, Failure> {
    let (namespace, scope) = (&core.namespace, caller.scope());
    let status = namespace.gc_status(&scope).await.map_err(|error| failure::of(&error))?;
    let (mut doomed, mut doomed_bytes, mut chunks) = (0, 0_u64, 0);
    let mut after = None;
    loop {
        let page = namespace.chunks_to_delete(&scope, after, Namespace::PAGE_LEN_MAX).await;
        let page = page.map_err(|error| failure::of(&error))?;
        chunks += page.chunks.len();
        for (_, chunk) in &page.chunks {
            let count = doomed_replicas(chunk);
            doomed += count;
            doomed_bytes = doomed_bytes.saturating_add(count.saturating_mul(chunk.seal.length));
        }
        after = page.next;
        if after.is_none() || chunks >= COUNTED_MAX {
            break;
        }
    }
    Ok(v1::GcStatusResponse {
        incarnation: status.incarnation.0,
        acknowledged: status.acknowledged.0,
        hold: status.hold.as_ref().map_or(0, |hold| hold.number),
        hold_reason: status.hold.map(|hold| hold.reason).unwrap_or_default(),
        doomed,
        doomed_bytes,
    })
}

/// Returns the number of replicas of a chunk that are to be deleted.
fn doomed_replicas(chunk: &Chunk) -> u64 {
    let is_over = chunk.is_tombstone();
    chunk.replicas.iter().filter(|replica| is_over || replica.is_doomed()).count() as u64
}

pub(super) async fn acknowledge(
    core: &Core,
    (caller, request): (Caller, v1::AcknowledgeGcRequest),
) -> Result<v1::AcknowledgeGcResponse, Failure> {
    check_cluster(core, &request.cluster_id)?;
    let incarnation = Incarnation(request.incarnation);
    let (scope, hold) = (caller.scope(), request.hold);
    let acknowledged = core.namespace.acknowledge_gc(&scope, incarnation, hold).await;
    acknowledged.map_err(|error| failure::of(&error))?;
    info!(%incarnation, hold, "deletion was acknowledged");
    Ok(v1::AcknowledgeGcResponse {})
}

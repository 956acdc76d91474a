//! Reads replicas again that may be marked as bad or gone only after that, because no other replica
//! of their chunk is known to be readable.

use std::convert::Infallible;

use dfs_metadata::namespace::Evidence;
use dfs_transport::in_request;
use dfs_types::{NodeId, ReplicaRef, RequestId, Scope, with_causes};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tracing::{info, warn};

use crate::core::Core;
use crate::verdicts;
use crate::workers::orders;

/// Replicas read concurrently, on all nodes together.
const AT_ONCE: usize = 16;

/// Reads the replicas and records the verdicts; runs until dropped.
pub(crate) async fn run(core: &Core) -> Infallible {
    let mut busy = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = busy.next(), if !busy.is_empty() => {}
            (node, replica) = core.rechecks.next(), if busy.len() < AT_ONCE => {
                let id = RequestId::random(&*core.random);
                busy.push(in_request(id, recheck(core, node, replica)));
            }
        }
    }
}

async fn recheck(core: &Core, node: NodeId, replica: ReplicaRef) {
    let chunk = replica.chunk;
    // The holder of the lease may have changed since; nodes report to the new one, too.
    if core.background.lease.grant().is_some()
        && let Err(why) = verdict(core, node, replica).await
    {
        warn!(%chunk, %node, why, "the last replica could not be read again");
    }
    core.rechecks.finish(node, replica);
}

async fn verdict(core: &Core, node: NodeId, replica: ReplicaRef) -> Result<(), String> {
    let (scope, chunk) = (Scope::internal(), replica.chunk);
    let read = core.namespace.chunks(scope, &[chunk]).await;
    let read = read.map_err(|error| with_causes(&error))?;
    let Some(record) = read.into_iter().flatten().next() else { return Ok(()) };
    let (verdict, _) = orders::verify(core, node, replica, &record)
        .await
        .map_err(|failure| failure.to_string())?;
    info!(%chunk, %node, condition = %verdict.condition, "the last replica was read again");
    let marked = core.namespace.mark_replica(scope, node, verdict, Evidence::ReadAgain, None).await;
    verdicts::note(core, node, verdict, &marked.map_err(|error| with_causes(&error))?);
    Ok(())
}

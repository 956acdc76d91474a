//! Records what nodes report of their replicas.

use dfs_metadata::namespace::{Evidence, Marked, ReplicaMark};
use dfs_proto::v1;
use dfs_types::{NodeId, ReplicaCondition, ReplicaVerdict, Scope, with_causes};
use futures_util::StreamExt as _;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::core::Core;

/// Verdicts recorded concurrently.
const AT_ONCE: usize = 16;

/// Records verdicts of a node on its replicas. Returns those that need no repetition, each with what
/// the record says then. A replica that may be the last readable one is first read again, by the
/// holder of the worker lease; until then the node repeats its verdict.
pub(crate) async fn record(
    core: &Core,
    scope: &Scope,
    node: NodeId,
    verdicts: Vec<ReplicaVerdict>,
) -> Vec<v1::SettledVerdict> {
    if verdicts.is_empty() {
        return Vec::new();
    }
    let cluster = core.registry().cluster(Instant::now());
    let recorded = verdicts.into_iter().map(|verdict| {
        let evidence = Evidence::Reported(&cluster);
        async move {
            let ReplicaVerdict { replica, number, condition, .. } = verdict;
            let marked = core.namespace.mark_replica(scope, node, verdict, evidence, None).await;
            let recorded = match marked {
                Ok(Marked::NotProven(replica)) => {
                    if core.background.lease.grant().is_some() {
                        core.rechecks.add(node, replica);
                    }
                    return None;
                }
                Ok(marked) => note(core, node, verdict, &marked),
                Err(error) => {
                    let (chunk, error) = (replica.chunk, with_causes(&error));
                    warn!(%chunk, %node, %condition, error, "a verdict could not be recorded");
                    return None;
                }
            };
            let condition = recorded.map_or(v1::ReplicaCondition::Unspecified, Into::into).into();
            Some(v1::SettledVerdict { replica: Some(replica.into()), number, condition })
        }
    });
    futures_util::stream::iter(recorded)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// Logs and counts a verdict, unless the replica was marked like this before. Returns what the record
/// says of the replica; `None` if nothing, or if it is doomed.
pub(crate) fn note(
    core: &Core,
    node: NodeId,
    verdict: ReplicaVerdict,
    marked: &Marked,
) -> Option<ReplicaCondition> {
    let ReplicaVerdict { replica, condition, block, .. } = verdict;
    match marked {
        Marked::Recorded { before, .. } => {
            if *before != ReplicaMark::from(condition) {
                let chunk = replica.chunk;
                info!(%chunk, %node, %condition, block, "the record of a replica has changed");
                if condition == ReplicaCondition::Bad {
                    core.counts.bad_replicas.increment();
                }
            }
            Some(condition)
        }
        Marked::Known { mark, .. } => mark.condition(),
        Marked::Unnamed | Marked::NotProven(_) => None,
    }
}

//! Calls on existing replicas: check, verify, delete.

use std::sync::Arc;

use dfs_chunkstore::StoreError;
use dfs_proto::wire;
use dfs_proto::{Failure, FieldError, v1};
use dfs_transport::spawn_in_request;
use dfs_types::{Generation, ReplicaCondition, ReplicaRef};
use futures_util::StreamExt as _;

use crate::Error;
use crate::node::Node;
use crate::orders::Authorised;

/// Maximum number of replicas that one call deletes.
const DELETE_MAX: usize = 1_000;
/// Number of replicas deleted concurrently.
const DELETE_AT_ONCE: usize = 16;

pub(super) async fn report_corrupt(
    node: &Arc<Node>,
    report: v1::CorruptReport,
) -> Result<v1::CorruptVerdict, Error> {
    node.check_meant_if_named(&report.node_id)?;
    let permit = node.calls.reports.enter()?;
    let replica = wire::replica("replica", report.replica)?;
    let node = node.clone();
    // The verification is completed even if the reader does not wait for it.
    let examined = spawn_in_request(async move {
        let _permit = permit;
        node.examine(replica, report.block).await
    });
    let set_aside = examined.await.map_err(|_| Error::BrokeOff)??;
    Ok(v1::CorruptVerdict { set_aside })
}

/// Reads a replica end to end.
pub(super) async fn verify(
    node: &Node,
    order: Authorised<v1::VerifyReplicaRequest>,
) -> Result<v1::VerifyReplicaResponse, Error> {
    let request = order.into_inner();
    let replica = wire::replica("replica", request.replica)?;
    let seal = wire::seal("sha256", (request.length, request.crc32c, &request.sha256))?;
    let _permit = node.calls.verifications.enter()?;
    let verdict = node.verify_named(replica, seal).await?;
    let proof = match verdict.condition {
        ReplicaCondition::Sound => {
            Some(node.read_proof(replica, Generation(request.generation))?.into())
        }
        ReplicaCondition::Bad | ReplicaCondition::Gone => None,
    };
    Ok(v1::VerifyReplicaResponse { verdict: Some(verdict.into()), proof })
}

/// Deletes exactly the replicas that are named. A failure does not delay the others; the response
/// names the replica with the reason.
pub(super) async fn delete(
    node: &Node,
    order: Authorised<v1::DeleteChunksRequest>,
) -> Result<v1::DeleteChunksResponse, Error> {
    let request = order.into_inner();
    let replicas = wire::at_most("replicas", request.replicas, DELETE_MAX)?;
    let replicas = replicas.into_iter().map(|replica| wire::replica("replicas", Some(replica)));
    let replicas: Vec<_> = replicas.collect::<Result<_, FieldError>>()?;
    let _permit = node.calls.deletions.enter()?;
    let results: Vec<_> = futures_util::stream::iter(replicas)
        .map(|replica| async move {
            let ReplicaRef { chunk, stamp, disk, .. } = replica;
            let result = delete_one(node, replica).await;
            match &result {
                Ok(true) => {
                    node.counts.deleted.increment();
                    tracing::debug!(%chunk, %disk, %stamp, "deleted a replica");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%chunk, %disk, %stamp, %error, "cannot delete a replica");
                }
            }
            if result.is_ok() {
                node.verdicts.forget(replica);
            }
            (replica, result)
        })
        .buffer_unordered(DELETE_AT_ONCE)
        .collect()
        .await;
    let mut answer = v1::DeleteChunksResponse::default();
    for (replica, result) in results {
        match result {
            Ok(is_deleted) => answer.deleted += u64::from(is_deleted),
            Err(error) => answer.failed.push(v1::FailedDeletion {
                replica: Some(replica.into()),
                code: error.code().name().to_owned(),
                message: Failure::from(error).message,
            }),
        }
    }
    Ok(answer)
}

/// Deletes a replica. `false` if its disk is in service and does not hold it.
async fn delete_one(node: &Node, replica: ReplicaRef) -> Result<bool, Error> {
    if node.store.delete(replica).await? {
        return Ok(true);
    }
    match node.absence(replica) {
        Error::Store(StoreError::NotFound(_)) => Ok(false),
        unknown => Err(unknown),
    }
}

//! Adoption of a replica that no record names, as ordered by a coordinator.

use std::sync::Arc;

use async_trait::async_trait;
use dfs_chunkstore::{ReadPace, StoreError};
use dfs_proto::{Failure, v1, wire};
use dfs_types::{Generation, ReplicaCondition};

use super::progress::Progress;
use crate::Error;
use crate::node::Node;
use crate::orders::Authorised;

/// Makes a replica durable under a new stamp, and reads it end to end. It may never have been synced,
/// and orders to delete it under its old stamp may still be in flight.
pub(super) async fn run(
    node: Arc<Node>,
    order: Authorised<v1::AdoptReplicaRequest>,
    progress: Progress,
) -> Result<v1::AdoptReplicaResponse, Failure> {
    adopt(&node, order, &progress).await.map_err(Failure::from)
}

async fn adopt(
    node: &Node,
    order: Authorised<v1::AdoptReplicaRequest>,
    progress: &Progress,
) -> Result<v1::AdoptReplicaResponse, Error> {
    let request = order.into_inner();
    let replica = wire::replica("replica", request.replica)?;
    let seal = wire::seal("sha256", (request.length, request.crc32c, &request.sha256))?;
    let _permit = node.calls.adoptions.enter()?;
    let found = node.look_up(replica).await?;
    let not_whole = || {
        let what = "the replica that no record names is not the whole chunk".to_owned();
        Error::from(StoreError::Damaged { chunk: replica.chunk, what })
    };
    // It stays as it is: its blocks may be the last good ones.
    if found.is_set_aside || !node.may_be_sealed_as(&found, seal).await {
        return Err(not_whole());
    }
    let pace = MovementPace { node, progress };
    let number = node.store.verdict_number();
    let restamped = match node.store.restamp(replica).await {
        Err(error @ StoreError::Damaged { .. }) => {
            // Sets it aside.
            node.verify_at(found, &pace).await?;
            return Err(error.into());
        }
        restamped => restamped.map_err(|error| node.failure(replica, number, error))?,
    };
    // Only what is synced can be read from the disk rather than from caches.
    if node.verify_at(restamped, &pace).await?.condition != ReplicaCondition::Sound {
        return Err(not_whole());
    }
    let receipt = node.receipt(&restamped)?;
    let proof = node.read_proof(restamped.replica(), Generation(request.generation))?;
    node.counts.adopted.increment();
    Ok(v1::AdoptReplicaResponse { adopted: Some(receipt.into()), proof: Some(proof.into()) })
}

/// Reads at the rate at which the node moves replicas: in turn with its builds, piece by piece.
struct MovementPace<'a> {
    node: &'a Node,
    progress: &'a Progress,
}

#[async_trait]
impl ReadPace for MovementPace<'_> {
    async fn admit(&self, bytes: u64) {
        self.node.movement.take(bytes).await;
        self.progress.note();
    }
}

//! Orders of the background work.

use dfs_proto::v1;
use dfs_proto::wire::WireId as _;
use dfs_types::{DiskId, ErrorCode, Receipt, SealKey};

use crate::cluster::coordinator::KEY;
use crate::cluster::{Cluster, Node, build, meant, meta, refused, replica_of, settings};

/// An order to node 1.
fn delete(replica: &v1::ReplicaRef, lease_epoch: u64) -> v1::DeleteChunksRequest {
    let replicas = vec![replica.clone()];
    v1::DeleteChunksRequest { replicas, lease_epoch, node_id: meant(1) }
}

async fn deleted(node: &Node, request: v1::DeleteChunksRequest) -> u64 {
    node.client().delete_chunks(request).await.unwrap().into_inner().deleted
}

#[tokio::test(start_paused = true)]
async fn an_order_of_an_older_lease_is_refused() {
    let cluster = Cluster::start().await;
    let (node, other) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let replica = replica_of(&node.write(1, b"data").await[0]);
    // An order that does nothing tells of the epoch as well.
    let unknown = v1::ReplicaRef { chunk_id: meta(9).chunk_id, ..replica.clone() };
    assert_eq!(deleted(&node, delete(&unknown, 5)).await, 0);
    assert_eq!(refused(node.client().delete_chunks(delete(&replica, 4)).await), ErrorCode::Stale);
    other.write(2, b"data").await;
    let order = build(&node, 2, b"data", &[&other]).await;
    let build = |lease_epoch| v1::BuildReplicaRequest { lease_epoch, ..order.clone() };
    assert_eq!(refused(node.client().build_replica(build(4)).await), ErrorCode::Stale);
    assert_eq!(node.store.sealed().await.len(), 1);
    // The same epoch goes on, and a newer one takes over.
    node.client().build_replica(build(6)).await.unwrap();
    assert_eq!(node.store.sealed().await.len(), 2);
    assert_eq!(refused(node.client().delete_chunks(delete(&replica, 5)).await), ErrorCode::Stale);
    assert_eq!(deleted(&node, delete(&replica, 6)).await, 1);
    assert_eq!(node.store.sealed().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_another_stamp_or_on_another_disk_is_left() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let first = replica_of(&node.write(1, b"data").await[0]);
    let others = [
        v1::ReplicaRef { stamp: first.stamp + 1, ..first.clone() },
        v1::ReplicaRef { disk_id: DiskId(99).to_wire(), ..first.clone() },
        v1::ReplicaRef { part: 1, ..first.clone() },
    ];
    for other in &others {
        let answer = node.client().delete_chunks(delete(other, 1)).await.unwrap().into_inner();
        assert_eq!(answer, v1::DeleteChunksResponse::default(), "left and not counted");
    }
    assert_eq!(deleted(&node, delete(&first, 1)).await, 1);
    // A late repeat does not hit the replica that was made since.
    let second = node.write(1, b"data").await[0].stamp;
    assert_ne!(first.stamp, second);
    assert_eq!(deleted(&node, delete(&first, 1)).await, 0);
    let sealed = node.store.sealed().await;
    assert_eq!((sealed.len(), sealed[0].stamp.0), (1, second));
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_under_the_key_of_the_registration() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let receipt = node.write(1, b"data").await.remove(0);
    let receipt: Receipt = dfs_proto::wire::receipt("receipt", receipt).unwrap();
    assert_eq!(receipt, receipt.sealed(&SealKey::from_slice(&KEY).unwrap()));
    assert_eq!((receipt.length, receipt.registration.0), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_meant_for_another_node_is_refused() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let receipt = node.write(1, b"data").await.remove(0);
    let replica = replica_of(&receipt);
    let other = meant(2);
    let delete = v1::DeleteChunksRequest { node_id: other.clone(), ..delete(&replica, 1) };
    let replica = Some(replica);
    assert_eq!(refused(node.client().delete_chunks(delete).await), ErrorCode::Unavailable);
    let list = v1::ListChunksRequest { node_id: other.clone(), ..Default::default() };
    assert_eq!(refused(node.client().list_chunks(list).await), ErrorCode::Unavailable);
    let build = build(&node, 3, b"data", &[&node]).await;
    let build = v1::BuildReplicaRequest { node_id: other.clone(), ..build };
    assert_eq!(refused(node.client().build_replica(build).await), ErrorCode::Unavailable);
    let report = v1::CorruptReport { replica: replica.clone(), node_id: other.clone(), block: 0 };
    assert_eq!(refused(node.client().report_corrupt(report).await), ErrorCode::Unavailable);
    let prepare = v1::ChunkMeta { node_id: other.clone(), ..meta(2) };
    assert_eq!(refused(node.prepare(prepare).await), ErrorCode::Unavailable);
    let retrieve = v1::RetrieveRequest { replica, node_id: other, ..Default::default() };
    let read = dfs_proto::bulk::retrieve_chunk(node.channel(), retrieve).await;
    assert_eq!(refused(read.map(drop)), ErrorCode::Unavailable);
    // Orders say whom they mean.
    let nobody = v1::ListChunksRequest::default();
    assert_eq!(refused(node.client().list_chunks(nobody).await), ErrorCode::InvalidArgument);
    assert_eq!(node.store.sealed().await.len(), 1);
}

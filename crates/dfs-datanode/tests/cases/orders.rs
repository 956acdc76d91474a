//! Orders of background workers.

use std::time::Duration;

use dfs_proto::wire::WireId as _;
use dfs_proto::{Issued, OrderParties, seal_order, v1};
use dfs_types::{DiskId, ErrorCode, Incarnation, NodeId, Receipt, SealKey};

use crate::cluster::coordinator::{KEY, NOW, ORDER_KEY};
use crate::cluster::{
    CLUSTER, Cluster, Node, build, last, meant, meta, refused, replica_of, sealed, sealed_at,
    settings,
};

/// Returns an order to node 1.
fn delete(replica: &v1::ReplicaRef, lease_epoch: u64) -> v1::DeleteChunksRequest {
    sealed(1, unsealed_delete(vec![replica.clone()], lease_epoch))
}

fn unsealed_delete(replicas: Vec<v1::ReplicaRef>, lease_epoch: u64) -> v1::DeleteChunksRequest {
    v1::DeleteChunksRequest { replicas, lease_epoch, node_id: meant(1), order: None }
}

async fn deleted(node: &Node, request: v1::DeleteChunksRequest) -> u64 {
    node.client().delete_chunks(request).await.unwrap().into_inner().deleted
}

#[tokio::test(start_paused = true)]
async fn order_of_an_older_lease_is_refused() {
    let cluster = Cluster::start().await;
    let (node, other) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let replica = replica_of(&node.write(1, b"data").await[0]);
    // An order without effect carries an epoch too.
    let unknown = v1::ReplicaRef { chunk_id: meta(9).chunk_id, ..replica.clone() };
    assert_eq!(deleted(&node, delete(&unknown, 5)).await, 0);
    assert_eq!(refused(node.client().delete_chunks(delete(&replica, 4)).await), ErrorCode::Stale);
    other.write(2, b"data").await;
    let order = build(&node, 2, b"data", &[&other]).await;
    let build = |lease_epoch| sealed(1, v1::BuildReplicaRequest { lease_epoch, ..order.clone() });
    assert_eq!(refused(node.client().build_replica(build(4)).await), ErrorCode::Stale);
    assert_eq!(node.store.sealed().await.len(), 1);
    // The same epoch stays valid, and a newer one takes over.
    last(node.client().build_replica(build(6)).await).await.unwrap();
    assert_eq!(node.store.sealed().await.len(), 2);
    assert_eq!(refused(node.client().delete_chunks(delete(&replica, 5)).await), ErrorCode::Stale);
    assert_eq!(deleted(&node, delete(&replica, 6)).await, 1);
    assert_eq!(node.store.sealed().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn replica_with_another_stamp_or_part_is_not_deleted() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let first = replica_of(&node.write(1, b"data").await[0]);
    let others = [
        v1::ReplicaRef { stamp: first.stamp + 1, ..first.clone() },
        v1::ReplicaRef { part: 1, ..first.clone() },
    ];
    for other in &others {
        let answer = node.client().delete_chunks(delete(other, 1)).await.unwrap().into_inner();
        assert_eq!(answer, v1::DeleteChunksResponse::default(), "kept and not counted");
    }
    assert_eq!(deleted(&node, delete(&first, 1)).await, 1);
    // A late repeat does not delete the replica created since.
    let second = node.write(1, b"data").await[0].stamp;
    assert_ne!(first.stamp, second);
    assert_eq!(deleted(&node, delete(&first, 1)).await, 0);
    let sealed = node.store.sealed().await;
    assert_eq!((sealed.len(), sealed[0].stamp.0), (1, second));
}

/// The replicas that an order did not delete, with their codes.
fn failed(response: &v1::DeleteChunksResponse) -> Vec<(v1::ReplicaRef, &str)> {
    let failed = response.failed.iter();
    failed.map(|failed| (failed.replica.clone().unwrap(), &failed.code[..])).collect()
}

#[tokio::test(start_paused = true)]
async fn replica_on_a_disk_out_of_service_is_not_reported_as_deleted() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = replica_of(&node.write(1, b"data").await[0]);
    let order = async |replica: &v1::ReplicaRef| {
        let answer = node.client().delete_chunks(delete(replica, 1)).await;
        answer.unwrap().into_inner()
    };
    node.store.set_failed(true);
    let answer = order(&replica).await;
    assert_eq!((answer.deleted, failed(&answer)), (0, vec![(replica.clone(), "UNAVAILABLE")]));
    // The same for a disk that the node does not have now.
    let elsewhere = v1::ReplicaRef { disk_id: DiskId(99).to_wire(), ..replica.clone() };
    node.store.set_failed(false);
    let answer = order(&elsewhere).await;
    assert_eq!((answer.deleted, failed(&answer)), (0, vec![(elsewhere, "UNAVAILABLE")]));
    assert_eq!(node.store.sealed().await.len(), 1);
    let answer = order(&replica).await;
    assert_eq!((answer.deleted, failed(&answer)), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn reads_from_a_disk_out_of_service_are_unavailable_not_not_found() {
    let cluster = Cluster::start().await;
    let (node, target) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let replica = replica_of(&node.write(1, b"data").await[0]);
    let read = async |replica: v1::ReplicaRef| {
        let retrieve = v1::RetrieveRequest { replica: Some(replica), ..Default::default() };
        let read = dfs_proto::bulk::retrieve_chunk(node.channel(), retrieve).await;
        refused(read.map(drop))
    };
    let report = async |replica: v1::ReplicaRef| {
        let report = v1::CorruptReport { replica: Some(replica), ..Default::default() };
        refused(node.client().report_corrupt(report).await)
    };
    let other = v1::ReplicaRef { stamp: replica.stamp + 1, ..replica.clone() };
    assert_eq!(read(other.clone()).await, ErrorCode::NotFound);
    assert_eq!(report(other).await, ErrorCode::NotFound);
    let order = build(&target, 1, b"data", &[&node]).await;
    node.store.set_failed(true);
    assert_eq!(read(replica.clone()).await, ErrorCode::Unavailable);
    assert_eq!(report(replica).await, ErrorCode::Unavailable);
    // A coordinator marks the replica of a source that replies NOT_FOUND.
    let built = last(target.client().build_replica(sealed(2, order)).await).await.unwrap();
    assert_eq!((built.outcome, &built.failed[0].code[..]), (None, "UNAVAILABLE"));
}

#[tokio::test(start_paused = true)]
async fn receipt_is_sealed_with_the_key_of_the_registration() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let receipt = node.write(1, b"data").await.remove(0);
    let receipt: Receipt = dfs_proto::wire::receipt("receipt", receipt).unwrap();
    assert_eq!(receipt, receipt.sealed(&SealKey::from_slice(&KEY).unwrap()));
    assert_eq!((receipt.length, receipt.registration.0), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn calls_for_another_node_are_refused() {
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
    // Orders must name their node.
    let nobody = v1::ListChunksRequest::default();
    assert_eq!(refused(node.client().list_chunks(nobody).await), ErrorCode::InvalidArgument);
    assert_eq!(node.store.sealed().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn order_without_a_coordinators_seal_does_not_raise_the_epoch() {
    let cluster = Cluster::start().await;
    let (node, other) = (cluster.node(1, settings()).await, cluster.node(2, settings()).await);
    let replica = replica_of(&node.write(1, b"data").await[0]);
    let forged = unsealed_delete(Vec::new(), u64::MAX);
    assert_eq!(
        refused(node.client().delete_chunks(forged.clone()).await),
        ErrorCode::Unauthenticated
    );
    // Nor does one for another node, or one that was modified in transit.
    let of_other = sealed(2, forged);
    assert_eq!(refused(node.client().delete_chunks(of_other).await), ErrorCode::Unauthenticated);
    let changed = v1::DeleteChunksRequest { lease_epoch: u64::MAX, ..delete(&replica, 5) };
    assert_eq!(refused(node.client().delete_chunks(changed).await), ErrorCode::Unauthenticated);
    let list = v1::ListChunksRequest { node_id: meant(1), ..Default::default() };
    assert_eq!(refused(node.client().list_chunks(list).await), ErrorCode::Unauthenticated);
    other.write(2, b"data").await;
    let build = build(&node, 2, b"data", &[&other]).await;
    let build = v1::BuildReplicaRequest { lease_epoch: u64::MAX, ..build };
    assert_eq!(refused(node.client().build_replica(build).await), ErrorCode::Unauthenticated);
    assert_eq!(node.store.sealed().await.len(), 1);
    // Orders of the cluster are still followed.
    assert_eq!(deleted(&node, delete(&replica, 5)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn age_of_an_order_is_measured_by_the_clock_of_its_coordinator() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let second = Duration::from_secs(1);
    let at = |time| sealed_at(1, time, unsealed_delete(Vec::new(), 1));
    for (time, is_followed) in [
        (NOW.minus(second * 58), true),
        (NOW.minus(second * 63), false),
        (NOW.plus(second * 58), true),
        (NOW.plus(second * 63), false),
    ] {
        let answer = node.client().delete_chunks(at(time)).await;
        if is_followed {
            answer.unwrap();
        } else {
            assert_eq!(refused(answer), ErrorCode::Stale, "{time:?}");
        }
    }
    // The clock of a coordinator that has replied to no heartbeat is unknown.
    let mut order = at(NOW);
    let parties = OrderParties { cluster: CLUSTER, incarnation: Incarnation(1), node: NodeId(1) };
    let key = SealKey::from_slice(&ORDER_KEY).unwrap();
    order = seal_order(order, &key, parties, Issued { coordinator: 99, at: NOW });
    assert_eq!(refused(node.client().delete_chunks(order).await), ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn disk_is_settled_by_a_sealed_order_that_names_it() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let own = replica_of(&node.write(1, b"data").await[0]).disk_id;
    let order = |disk: bytes::Bytes| v1::SettleDiskRequest {
        disk_id: disk,
        node_id: meant(1),
        lease_epoch: 5,
        order: None,
    };
    let settle = async |order| refused(node.client().settle_disk(order).await);
    assert_eq!(settle(order(own.clone())).await, ErrorCode::Unauthenticated);
    assert_eq!(settle(sealed(1, order(DiskId(99).to_wire()))).await, ErrorCode::NotFound);
    assert_eq!(settle(sealed(1, order(bytes::Bytes::new()))).await, ErrorCode::InvalidArgument);
    node.client().settle_disk(sealed(1, order(own.clone()))).await.unwrap();
    let late = v1::SettleDiskRequest { lease_epoch: 4, ..order(own) };
    assert_eq!(settle(sealed(1, late)).await, ErrorCode::Stale);
}

//! Orders to adopt a replica that no record names.

use std::time::Duration;

use dfs_datanode::Settings;
use dfs_proto::{v1, wire};
use dfs_types::{Crc32c, ErrorCode, Receipt, SealKey, Sha256};
use tokio::time::Instant;

use crate::cluster::coordinator::KEY;
use crate::cluster::{
    CHUNK, Cluster, Node, build, last, meant, meta, refused, replica_of, sealed, settings,
};

fn order(replica: &v1::ReplicaRef, data: &[u8]) -> v1::AdoptReplicaRequest {
    v1::AdoptReplicaRequest {
        replica: Some(replica.clone()),
        length: data.len() as u64,
        crc32c: Crc32c::of(data).0,
        sha256: Sha256::of(data).0.to_vec().into(),
        generation: 3,
        lease_epoch: 5,
        node_id: meant(1),
        order: None,
    }
}

async fn adopt(
    node: &Node,
    order: v1::AdoptReplicaRequest,
) -> Result<v1::AdoptReplicaResponse, tonic::Status> {
    last(node.client().adopt_replica(sealed(1, order)).await).await
}

#[tokio::test(start_paused = true)]
async fn late_delete_order_does_not_apply_to_an_adopted_replica() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let old = replica_of(&node.write(1, b"data").await[0]);
    let answer = adopt(&node, order(&old, b"data")).await.unwrap();
    let receipt: Receipt = wire::receipt("adopted", answer.adopted.unwrap()).unwrap();
    assert!(receipt.stamp.0 > old.stamp && receipt.length == 4);
    let key = SealKey::from_slice(&KEY).unwrap();
    assert_eq!(receipt.sealed(&key), receipt, "sealed by the node");
    let proof = wire::read_proof("proof", answer.proof.unwrap()).unwrap();
    assert_eq!((proof.replica.stamp, proof.generation.0), (receipt.stamp, 3));
    let delete = v1::DeleteChunksRequest {
        replicas: vec![old.clone()],
        lease_epoch: 5,
        node_id: meant(1),
        order: None,
    };
    let deleted = node.client().delete_chunks(sealed(1, delete)).await.unwrap().into_inner();
    assert_eq!(deleted, v1::DeleteChunksResponse::default());
    let held = node.store.sealed().await;
    assert_eq!((held.len(), held[0].stamp), (1, receipt.stamp));
    assert_eq!(refused(adopt(&node, order(&old, b"data")).await), ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn replica_that_is_not_the_whole_chunk_is_not_adopted() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let data = vec![7; CHUNK as usize];
    let replica = replica_of(&node.write(1, &data).await[0]);
    let other = adopt(&node, order(&replica, b"data")).await;
    assert_eq!(refused(other), ErrorCode::Corrupt);
    assert_eq!(node.store.sealed().await[0].stamp.0, replica.stamp, "left as it was");
    node.store.damage_blocks(&[2]);
    assert_eq!(refused(adopt(&node, order(&replica, &data)).await), ErrorCode::Corrupt);
    let held = node.store.sealed().await;
    assert!(held[0].is_set_aside, "{held:?}");
    node.store.damage_blocks(&[]);
    let again = order(&held[0].replica().into(), &data);
    assert_eq!(refused(adopt(&node, again).await), ErrorCode::Corrupt, "first a verdict clears it");
}

#[tokio::test(start_paused = true)]
async fn adoption_on_an_unreadable_or_failed_disk_gives_no_verdict() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = replica_of(&node.write(1, b"data").await[0]);
    node.store.hide_blocks(&[0]);
    assert_eq!(refused(adopt(&node, order(&replica, b"data")).await), ErrorCode::Unavailable);
    node.store.hide_blocks(&[]);
    let held = node.store.sealed().await.remove(0);
    assert!(!held.is_set_aside);
    let stale = v1::AdoptReplicaRequest { lease_epoch: 4, ..order(&replica, b"data") };
    assert_eq!(refused(adopt(&node, stale).await), ErrorCode::Stale);
    adopt(&node, order(&held.replica().into(), b"data")).await.unwrap();
    node.store.set_failed(true);
    let held = node.store.sealed().await.remove(0);
    let failed = adopt(&node, order(&held.replica().into(), b"data")).await;
    assert_eq!(refused(failed), ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn adoption_at_the_lowest_rate_shows_progress_and_lets_builds_pass() {
    let cluster = Cluster::start().await;
    let slow = Settings { move_bytes_per_second: 1 << 20, ..settings() };
    let (node, target) = (cluster.node(1, slow).await, cluster.node(2, settings()).await);
    let data = vec![7; 32 << 20];
    let meta = v1::ChunkMeta { max_length: 32 << 20, ..meta(1) };
    let receipts = node.finish(&node.prepare(meta).await.unwrap(), &data).await.unwrap();
    node.write(2, b"data").await;
    let order = sealed(1, order(&replica_of(&receipts[0]), &data));
    let began = Instant::now();
    let mut messages = node.client().adopt_replica(order).await.unwrap().into_inner();
    let build = sealed(2, build(&target, 2, b"data", &[&node]).await);
    let built = last(target.client().build_replica(build).await).await.unwrap();
    assert!(built.outcome.is_some() && began.elapsed() < Duration::from_secs(20), "{built:?}");
    let (mut heard, mut adopted) = (Instant::now(), None);
    while let Some(message) = messages.message().await.unwrap() {
        assert!(heard.elapsed() < Duration::from_secs(20), "{:?}", heard.elapsed());
        (heard, adopted) = (Instant::now(), message.adopted);
    }
    assert!(adopted.is_some() && began.elapsed() > Duration::from_secs(30));
}

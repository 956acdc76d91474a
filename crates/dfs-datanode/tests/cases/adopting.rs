//! Orders to adopt a replica that no record names.

use dfs_proto::{v1, wire};
use dfs_types::{Crc32c, ErrorCode, Receipt, SealKey, Sha256};

use crate::cluster::coordinator::KEY;
use crate::cluster::{CHUNK, Cluster, Node, meant, refused, replica_of, sealed, settings};

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
    Ok(node.client().adopt_replica(sealed(1, order)).await?.into_inner())
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

//! F1: unreadable records are named, and block nothing else.

use bytes::Bytes;
use dfs_metadata::engine::{Commit, Write};
use dfs_proto::v1;
use dfs_types::NodeId;

use crate::cluster::{Cluster, eventually, http_get};

impl Cluster {
    async fn damage(&self, key: Vec<u8>) {
        let write = Write::Put(key.into(), Bytes::from_static(b"\x01\xff"));
        let commit = Commit { conditions: vec![], writes: vec![write] };
        self.engine.commit_batch(vec![commit]).await.unwrap();
    }

    /// Waits until status and metrics count this many unreadable records.
    async fn names_unreadable(&self, records: u64) -> v1::ReplicationStatus {
        eventually("the unreadable records are counted", || async {
            let status = self.replication().await;
            status.is_some_and(|status| status.is_known && status.unreadable_records == records)
        })
        .await;
        let metric = format!("dfs_coordinator_unreadable_records {records}");
        eventually("the metrics count them", || async {
            http_get(&self.handle, "/metrics").await.lines().any(|line| line == metric)
        })
        .await;
        self.replication().await.unwrap()
    }
}

#[tokio::test]
async fn f01_unreadable_records_are_named_and_repair_continues() {
    let mut cluster = Cluster::start(5).await;
    let good = cluster.put("/good", b"good", &[1, 2, 3]).await;
    let damaged = cluster.put("/damaged", b"damaged", &[1, 2, 3]).await;
    cluster.damage([&b"k/"[..], &damaged.to_bytes()].concat()).await;
    let status = cluster.names_unreadable(1).await;
    assert!(status.unreadable_example.starts_with("k/"), "{status:?}");
    cluster.damage([&b"o/"[..], &[0; 16]].concat()).await;
    cluster.damage([&b"n/"[..], &NodeId(4).to_bytes()].concat()).await;
    cluster.names_unreadable(3).await;

    cluster.node(3).silence();
    let is_repaired = async |cluster: &Cluster| cluster.replicas("/good").await.contains_key(&5);
    eventually("the other chunk is repaired", || is_repaired(&cluster)).await;
    assert!(cluster.node(5).holds(good).is_some());
    // Also after a restart, with nothing of the node in memory.
    cluster.stop().await;
    let engine = cluster.engine.clone();
    cluster.start_again(engine).await;
    for node in [1, 2, 5] {
        cluster.node(node).silence();
        cluster.node(node).beat().await;
    }
    let status = cluster.names_unreadable(3).await;
    assert_eq!(status.chunks, 1);
    let shown = cluster.status().await.nodes;
    assert_eq!(shown.len(), 4, "the node is not shown");
    let safe = v1::SafeToStopRequest {
        cluster_id: cluster.status().await.cluster_id,
        node_ids: vec![NodeId(5).to_bytes().to_vec().into()],
    };
    let safe = cluster.admin().await.safe_to_stop(safe).await.unwrap().into_inner();
    assert!(!safe.is_safe, "{safe:?}");
}

#[tokio::test]
async fn f01_replicas_of_an_unreadable_node_are_rebuilt_after_a_restart() {
    let mut cluster = Cluster::start(5).await;
    cluster.put("/file", b"file", &[1, 2, 4]).await;
    cluster.stop().await;
    cluster.damage([&b"n/"[..], &NodeId(4).to_bytes()].concat()).await;
    let engine = cluster.engine.clone();
    cluster.start_again(engine).await;
    for node in [1, 2, 3, 5] {
        cluster.node(node).silence();
        cluster.node(node).beat().await;
    }
    eventually("a replica is built in place of the one that does not count", || async {
        let replicas = cluster.replicas("/file").await;
        replicas.contains_key(&3) || replicas.contains_key(&5)
    })
    .await;
}

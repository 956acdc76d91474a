//! Requests refused because of limits and minimums.

use std::time::Duration;

use dfs_datanode::Settings;
use dfs_proto::{Failure, v1};
use dfs_types::{ErrorCode, NodeId};
use tonic::Status;

use crate::cluster::{
    Cluster, Hang, Node, meant, meta, meta_for, refused, replica_meta, replica_of, sealed, settings,
};

#[tokio::test(start_paused = true)]
async fn sessions_of_clients_and_datanodes_have_separate_limits() {
    let cluster = Cluster::start().await;
    let settings = Settings { sessions: 2, replica_sessions: 1, ..settings() };
    let node = cluster.node(1, settings).await;
    let first = node.prepare(meta(1)).await.unwrap();
    node.prepare(meta(2)).await.unwrap();
    assert_eq!(refused(node.prepare(meta(3)).await), ErrorCode::Busy);
    // The clients have used up their slots, but the other datanodes have not.
    node.prepare(replica_meta(4)).await.unwrap();
    assert_eq!(refused(node.prepare(replica_meta(5)).await), ErrorCode::Busy);
    // Sealing a chunk releases its slot, even while its session is remembered.
    node.finish(&first, b"data").await.unwrap();
    node.prepare(meta(3)).await.unwrap();
    assert_eq!(refused(node.prepare(meta(6)).await), ErrorCode::Busy);
    assert_eq!(refused(node.prepare(replica_meta(5)).await), ErrorCode::Busy);
}

#[tokio::test(start_paused = true)]
async fn refused_session_takes_no_slot() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, Settings { sessions: 1, ..settings() }).await;
    for _ in 0..3 {
        let too_many = v1::ChunkMeta { min_replicas: 2, ..meta(1) };
        assert_eq!(refused(node.prepare(too_many).await), ErrorCode::NotEnoughNodes);
    }
    node.prepare(meta(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn downstream_streams_are_limited() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, Settings { replication_streams: 2, ..settings() }).await;
    let (second, third) = (cluster.node(2, settings()).await, cluster.node(3, settings()).await);
    let fourth = cluster.node(4, settings()).await;
    let too_many = meta_for(2, &[&second, &third, &fourth]);
    assert_eq!(refused(node.prepare(too_many).await), ErrorCode::Busy);
    let ready = node.prepare(meta_for(3, &[&second, &third])).await.unwrap();
    assert_eq!(refused(node.prepare(meta_for(4, &[&second])).await), ErrorCode::Busy);
    node.prepare(meta(5)).await.expect("a chunk without replicas takes no stream");
    // Sealing the chunk releases its streams.
    assert_eq!(node.finish(&ready, b"data").await.unwrap().len(), 3);
    node.prepare(meta_for(4, &[&second, &third])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn node_requires_the_configured_number_of_replicas() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, Settings { min_durable_replicas: 2, ..settings() }).await;
    let second = cluster.node(2, settings()).await;
    // The client would accept one.
    assert_eq!(refused(node.prepare(meta(1)).await), ErrorCode::NotEnoughNodes);
    let mut gone = second.location();
    gone.node_id = NodeId(9).to_bytes().to_vec().into();
    gone.address = "nobody:1".to_owned();
    let with_one = v1::ChunkMeta { replicas: vec![gone.clone()], ..meta(1) };
    assert_eq!(refused(node.prepare(with_one).await), ErrorCode::NotEnoughNodes);
    let with_two = v1::ChunkMeta { replicas: vec![gone, second.location()], ..meta(1) };
    let ready = node.prepare(with_two).await.unwrap();
    assert_eq!((ready.ready_replicas.len(), ready.dropped.len()), (1, 1));
    // A higher requirement of the client applies too.
    let three = v1::ChunkMeta { min_replicas: 3, ..meta_for(2, &[&second]) };
    assert_eq!(refused(node.prepare(three).await), ErrorCode::NotEnoughNodes);
    // A downstream node does not count: the primary does.
    node.prepare(replica_meta(3)).await.unwrap();
    // The second replica is lost midway: the first alone is not enough.
    second.store.hang(Hang::Write);
    assert_eq!(node.finish(&ready, b"data").await, Err(ErrorCode::NotEnoughNodes));
}

/// Makes a call until the limit is reached because all hang in the disk; the next one is refused
/// with a hint, and accepted once the others have ended.
async fn calls_are_bounded<F>(node: &Node, most: usize, call: impl Fn() -> F)
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    node.store.hang(Hang::Everything);
    let calls: Vec<_> = (0..most).map(|_| tokio::spawn(call())).collect();
    node.store.are_stuck(most).await;
    let over = tokio::time::timeout(Duration::from_secs(5), call()).await;
    let over = Failure::from_status(&over.expect("a refusal is immediate").unwrap_err());
    assert_eq!(over.code, ErrorCode::Busy);
    assert!(over.retry_after.is_some());
    node.store.go_on();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    call().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn listings_are_limited() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    calls_are_bounded(&node, 16, || {
        let mut client = node.client();
        async move {
            let request = v1::ListChunksRequest { node_id: meant(1), ..Default::default() };
            let request = sealed(1, request);
            let mut pages = client.list_chunks(request).await?.into_inner();
            assert!(pages.message().await?.is_some_and(|page| page.is_last));
            Ok(())
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn delete_orders_are_limited() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = replica_of(&node.write(1, b"data").await[0]);
    calls_are_bounded(&node, 16, || {
        let mut client = node.client();
        let replicas = vec![replica.clone()];
        let request =
            v1::DeleteChunksRequest { replicas, lease_epoch: 1, node_id: meant(1), order: None };
        let request = sealed(1, request);
        async move { client.delete_chunks(request).await.map(drop) }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reports_of_bad_blocks_are_limited() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = replica_of(&node.write(1, b"data").await[0]);
    calls_are_bounded(&node, 64, || {
        let mut client = node.client();
        let replica = Some(replica.clone());
        let report = v1::CorruptReport { replica, ..Default::default() };
        async move { client.report_corrupt(report).await.map(drop) }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn replica_reported_again_is_not_verified_again() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = replica_of(&node.write(1, b"data").await[0]);
    let report = async || {
        let replica = Some(replica.clone());
        let report = v1::CorruptReport { replica, ..Default::default() };
        node.client().report_corrupt(report).await.unwrap().into_inner().set_aside
    };
    for _ in 0..5 {
        assert!(!report().await);
    }
    assert_eq!(node.store.verified(), 1);
    // It may have become bad since.
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(!report().await);
    assert_eq!(node.store.verified(), 2);
}

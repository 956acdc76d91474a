//! Lifecycle of a session.

use std::time::Duration;

use dfs_datanode::Settings;
use dfs_proto::v1::{self, chunk_ack::Kind};
use dfs_proto::wire::WireId as _;
use dfs_types::{ClusterId, ErrorCode, SessionId};
use tokio::time::sleep;

use crate::cluster::{Cluster, Hang, eventually, frames, meta, refused, replica_of, settings};

const IDLE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn idle_session_ends_and_releases_its_slot() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, Settings { sessions: 1, ..settings() }).await;
    let ready = node.prepare(meta(1)).await.unwrap();
    assert_eq!(u128::from(ready.idle_timeout_ms), IDLE.as_millis());
    let mut stream = node.attach(&ready, 1).await;
    assert!(matches!(stream.ack().await, Ok(Some(Kind::Attached(_)))));
    // Each frame keeps the session alive.
    let [first, second] = frames(&vec![1; 2 * dfs_types::BLOCK_SIZE]).try_into().unwrap();
    sleep(IDLE * 2 / 3).await;
    stream.send(first.clone()).await;
    sleep(IDLE * 2 / 3).await;
    assert!(matches!(stream.ack().await, Ok(Some(Kind::Progress(_)))));
    assert_eq!(refused(node.prepare(meta(2)).await), ErrorCode::Busy);
    sleep(IDLE).await;
    assert_eq!(stream.end().await, Err(ErrorCode::Stale));
    let mut late = node.attach(&ready, 2).await;
    late.send(second).await;
    assert_eq!(late.end().await, Err(ErrorCode::Stale));
    assert!(node.store.sealed().await.is_empty());
    // Slot, bytes and chunk id are free again.
    node.write(1, b"data").await;
}

#[tokio::test(start_paused = true)]
async fn unknown_session_is_stale() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let ready = v1::ChunkUploadReady { session_id: SessionId(9).to_wire(), ..Default::default() };
    let mut stream = node.attach(&ready, 1).await;
    assert_eq!(stream.end().await, Err(ErrorCode::Stale));
    let ready = v1::ChunkUploadReady { session_id: vec![1; 3].into(), ..Default::default() };
    let mut stream = node.attach(&ready, 1).await;
    assert_eq!(stream.end().await, Err(ErrorCode::InvalidArgument));
}

#[tokio::test(start_paused = true)]
async fn result_of_a_session_can_be_requested_again() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let ready = node.prepare(meta(1)).await.unwrap();
    let receipts = node.finish(&ready, b"data").await.unwrap();
    let again = node.attach(&ready, 2).await.end().await;
    assert_eq!(again, Ok(receipts));
    // But not forever.
    sleep(IDLE).await;
    assert_eq!(node.attach(&ready, 3).await.end().await, Err(ErrorCode::Stale));
    assert_eq!(node.store.sealed().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn session_on_a_hanging_disk_does_not_delay_others() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let hung = node.prepare(meta(1)).await.unwrap();
    node.store.hang(Hang::Write);
    let mut stream = node.attach(&hung, 1).await;
    stream.send(frames(&vec![1; 2 * dfs_types::BLOCK_SIZE]).remove(0)).await;
    node.store.is_stuck().await;
    sleep(IDLE / 2).await;
    node.prepare(meta(2)).await.unwrap();
    let sessions = async |count| {
        let what = format!("{count} sessions left");
        eventually(&what, || async {
            let report = cluster.coordinator.last_report(node.handle.node_id());
            report.is_some_and(|report| report.sessions == count)
        })
        .await;
    };
    sessions(2).await;
    // The hung one is ended first, and releases its slot when its disk recovers.
    sessions(1).await;
    node.store.go_on();
    assert_eq!(stream.end().await, Err(ErrorCode::Stale));
    sessions(0).await;
    assert!(node.store.sealed().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn chunks_of_another_cluster_are_neither_accepted_nor_served() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let replica = replica_of(&node.write(1, b"data").await[0]);
    let other = ClusterId(78).to_wire();
    let prepared = node.prepare(v1::ChunkMeta { cluster_id: other.clone(), ..meta(2) }).await;
    assert_eq!(refused(prepared), ErrorCode::WrongCluster);
    let read = async |cluster_id| {
        let replica = Some(replica.clone());
        let request = v1::RetrieveRequest { cluster_id, replica, ..Default::default() };
        let mut frames = dfs_proto::bulk::retrieve_chunk(node.channel(), request).await?;
        Ok(frames.message().await?.map(|frame| frame.data))
    };
    assert_eq!(refused(read(other).await), ErrorCode::WrongCluster);
    // An empty id means this cluster.
    for ours in [meta(1).cluster_id, bytes::Bytes::new()] {
        assert_eq!(read(ours).await.unwrap().unwrap(), &b"data"[..]);
    }
}

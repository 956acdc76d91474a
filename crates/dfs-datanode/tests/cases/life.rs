//! Starting, observing, refusing and stopping a node.

use std::time::Duration;

use dfs_chunkstore::{IdentityStore as _, Registration};
use dfs_datanode::Settings;
use dfs_proto::v1;
use dfs_types::{ErrorCode, NodeId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::cluster::{
    CLUSTER, Cluster, Hang, PATIENCE, TestStore, eventually, frames, meta, refused, settings,
};

/// Time beyond the drain time that closing may take.
const MARGIN: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn health_and_reflection_are_served_over_grpc() {
    let cluster = Cluster::start().await;
    let node = cluster.node(1, settings()).await;
    let mut health = HealthClient::new(node.channel());
    let request = HealthCheckRequest { service: "dfs.v1.DataNode".to_owned() };
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(node.channel());
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}")
    };
    assert!(listed.service.iter().any(|service| service.name == "dfs.v1.DataNode"), "{listed:?}");
}

#[tokio::test]
async fn health_and_metrics_are_served_over_http() {
    let cluster = Cluster::start().await;
    let settings = Settings { http_listen: "127.0.0.1:0".to_owned(), ..settings() };
    let node = cluster.node(1, settings).await;
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(node.handle.http_address().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/metrics").await.contains("dfs_datanode_sealed_total 0"));
}

#[tokio::test(start_paused = true)]
async fn first_of_two_identical_disks_is_refused_once_the_second_registers() {
    let cluster = Cluster::start().await;
    let first = cluster.node(1, settings()).await;
    let image = TestStore::new(NodeId(1));
    let registration = first.store.identity().registration.unwrap();
    image.store_registration(registration).await.unwrap();
    let second = cluster.node_on(image, settings()).await;
    assert_eq!(second.store.identity().registration.unwrap().number.0, 2);
    eventually("the first is refused", || async {
        let reason = first.handle.readiness().reason();
        reason.is_some_and(|reason| reason.contains("old image"))
    })
    .await;
    // It accepts nothing, and gives no receipts.
    assert_eq!(refused(first.prepare(meta(1)).await), ErrorCode::Unavailable);
    second.write(1, b"data").await;
    assert_eq!(second.handle.readiness().reason(), None);
    assert_eq!(first.store.identity().registration, Some(registration), "its disks are unchanged");
}

/// K4: receipts count only for disks of the last registration.
#[tokio::test(start_paused = true)]
async fn k04_node_registers_again_when_a_missing_disk_comes_into_service() {
    let cluster = Cluster::start().await;
    cluster.coordinator.make_beats_rare();
    let store = TestStore::new(NodeId(1));
    store.unmount();
    let node = cluster.node_on(store, settings()).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(cluster.coordinator.registration(NodeId(1)), 1, "nothing has changed");
    node.store.mount();
    eventually("it registers again", || async {
        let report = cluster.coordinator.last_report(NodeId(1)).unwrap();
        report.registration == 2 && report.disks[0].state() == v1::DiskState::Healthy
    })
    .await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(cluster.coordinator.registration(NodeId(1)), 2, "once");
    node.write(1, b"data").await;
}

#[tokio::test(start_paused = true)]
async fn node_that_the_cluster_has_no_records_of_joins_with_its_disks_returning() {
    let cluster = Cluster::start().await;
    cluster.coordinator.lose_records();
    let node = cluster.node(1, settings()).await;
    let report = cluster.coordinator.last_report(NodeId(1)).unwrap();
    assert_eq!(report.disks[0].state(), v1::DiskState::Returning);
    assert!(report.is_full, "it takes no chunks");
    assert_eq!(refused(node.prepare(meta(1)).await), ErrorCode::NoSpace);
}

#[tokio::test(start_paused = true)]
async fn node_of_another_cluster_does_not_join() {
    let cluster = Cluster::start().await;
    let store = TestStore::new(NodeId(1));
    let other = dfs_types::ClusterId(CLUSTER.0 + 1);
    let registration = Registration {
        cluster: other,
        incarnation: dfs_types::Incarnation(1),
        // A number that the coordinator would take for a new node's.
        number: dfs_types::RegistrationNumber(0),
    };
    store.store_registration(registration).await.unwrap();
    let node = tokio::select! {
        node = cluster.node_on(store.clone(), settings()) => Some(node),
        () = tokio::time::sleep(PATIENCE / 2) => None,
    };
    assert!(node.is_none(), "it joined");
    assert_eq!(store.identity().registration, Some(registration));
    assert!(cluster.coordinator.last_report(NodeId(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn stop_is_bounded_while_a_disk_hangs() {
    for hang in [Hang::Write, Hang::Seal] {
        let cluster = Cluster::start().await;
        let mut node = cluster.node(1, settings()).await;
        let (ready, idle) = (node.prepare(meta(1)).await.unwrap(), node.prepare(meta(2)).await);
        node.store.hang(hang);
        let stream = node.attach(&ready, 1).await;
        stream.send(frames(b"data").remove(0)).await;
        node.store.is_stuck().await;
        let ordered = Instant::now();
        node.stop.stop();
        timeout(PATIENCE, &mut node.running).await.expect("it ends").unwrap();
        assert!(ordered.elapsed() <= node.drain + MARGIN, "{hang:?}: {:?}", ordered.elapsed());
        // The session that is not stuck was ended properly: its place in the store is free.
        drop(idle.unwrap());
        assert_eq!(node.handle.metrics().render().matches("failed_sessions_total 1").count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn idle_node_stops_at_once() {
    let cluster = Cluster::start().await;
    let mut node = cluster.node(1, settings()).await;
    // A session without a stream delays nothing.
    node.prepare(meta(1)).await.unwrap();
    let ordered = Instant::now();
    node.stop.stop();
    timeout(PATIENCE, &mut node.running).await.expect("it ends").unwrap();
    assert!(ordered.elapsed() < Duration::from_secs(1), "{:?}", ordered.elapsed());
    assert!(node.store.sealed().await.is_empty());
    assert_eq!(node.handle.readiness().reason().as_deref(), Some("stopping"));
}

#[tokio::test(start_paused = true)]
async fn chunk_in_progress_is_finished_before_the_stop() {
    let cluster = Cluster::start().await;
    let mut node = cluster.node(1, settings()).await;
    let ready = node.prepare(meta(1)).await.unwrap();
    node.store.hang(Hang::Seal);
    let mut stream = node.attach(&ready, 1).await;
    stream.send(frames(b"data").remove(0)).await;
    node.store.is_stuck().await;
    node.stop.stop();
    eventually("it reports that it is stopping", || async {
        let report = cluster.coordinator.last_report(NodeId(1));
        report.is_some_and(|report| report.is_stopping)
    })
    .await;
    node.store.go_on();
    assert_eq!(stream.end().await.unwrap().len(), 1);
    timeout(PATIENCE, &mut node.running).await.expect("it ends").unwrap();
}

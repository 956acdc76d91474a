//! Starting, observing and stopping.

use dfs_coordinator::{Error, Service, Settings};
use dfs_runtime::JoinSecret;
use dfs_types::{ClusterId, ErrorCode};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::cluster::{Cluster, channel, components, eventually, http_get, settings};

async fn get(cluster: &Cluster, path: &str) -> String {
    http_get(&cluster.handle, path).await
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let cluster = Cluster::start(2).await;
    assert!(get(&cluster, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(&cluster, "/readyz").await.starts_with("HTTP/1.1 200"));
    eventually("the nodes are counted", || async {
        let metrics = get(&cluster, "/metrics").await;
        metrics.contains("dfs_coordinator_datanodes{state=\"active\"} 2")
    })
    .await;
    let mut health = HealthClient::new(channel(&cluster.address()).await);
    let request = HealthCheckRequest { service: "dfs.v1.Coordinator".to_owned() };
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    eventually("background work runs", || async {
        cluster.status().await.worker_lease_holder == cluster.address()
    })
    .await;
}

#[tokio::test]
async fn coordinator_stops_despite_open_heartbeat_streams() {
    let mut cluster = Cluster::start(2).await;
    let (address, http) = (cluster.handle.address, cluster.handle.http_address.unwrap());
    cluster.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    assert!(TcpStream::connect(http).await.is_err());
    assert_eq!(cluster.handle.readiness.reason().as_deref(), Some("stopping"));
}

#[tokio::test]
async fn invalid_settings_are_named() {
    let cluster = Cluster::start(0).await;
    let wrong = [
        ("join_secret", Settings { join_secret: JoinSecret::default(), ..settings() }),
        ("replication_factor", Settings { replication_factor: Some(0), ..settings() }),
        ("min_write_replicas", Settings { min_write_replicas: Some(4), ..settings() }),
        ("cluster_id", Settings { cluster_id: "7".to_owned(), ..settings() }),
        ("lost_after_ms", Settings { lost_after_ms: 1, ..settings() }),
        ("pressure_percent", Settings { pressure_percent: 0, ..settings() }),
    ];
    for (name, settings) in wrong {
        let components = components(&cluster.engine, &cluster.clock);
        match Service::start(settings, components).await {
            Err(Error::Setting { setting, .. }) => assert_eq!(setting, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let taken = Settings { listen: cluster.address(), ..settings() };
    let components = components(&cluster.engine, &cluster.clock);
    let started = Service::start(taken, components).await;
    assert!(matches!(started, Err(Error::Listen { .. })), "{started:?}");
}

#[tokio::test]
async fn store_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(0).await;
    let id = ClusterId::from_slice(&cluster.status().await.cluster_id).unwrap();
    cluster.stop().await;
    let start = async |cluster_id: ClusterId| {
        let settings = Settings { cluster_id: cluster_id.to_string(), ..settings() };
        Service::start(settings, components(&cluster.engine, &cluster.clock)).await
    };
    let refused = start(ClusterId(id.0 ^ 1)).await.expect_err("another cluster was wanted");
    assert_eq!(refused.code(), ErrorCode::WrongCluster, "{refused:?}");
    start(id).await.unwrap();
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let cluster = Cluster::start(0).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel(&cluster.address()).await);
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<&str> = listed.service.iter().map(|service| &service.name[..]).collect();
    for name in ["dfs.v1.Coordinator", "dfs.v1.Membership", "dfs.v1.Admin"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

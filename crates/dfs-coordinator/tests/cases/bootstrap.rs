//! A coordinator that waits until a cluster is created.

use std::sync::Arc;
use std::time::Duration;

use dfs_coordinator::{Error, Handle, Service, Settings};
use dfs_metadata::engine::Engine;
use dfs_metadata::memory::MemoryEngine;
use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::v1::coordinator_client::CoordinatorClient;
use dfs_proto::{Detail, Failure, v1};
use dfs_runtime::{Shutdown, Trigger};
use dfs_types::{ClusterId, ErrorCode};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Response;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cluster::datanode::{FakeDataNode, Neighbours};
use crate::cluster::{
    ManualClock, channel, components, eventually, http_get, refused, settings, upload_request,
};

const OURS: ClusterId = ClusterId(7);
const DEADLINE: Duration = Duration::from_secs(20);

struct Waiting {
    handle: Handle,
    stop: Trigger,
    running: JoinHandle<Result<(), Error>>,
}

impl Waiting {
    async fn start(engine: &Arc<dyn Engine>, settings: Settings) -> Self {
        let settings = Settings { await_init: true, ..settings };
        let components = components(engine, &ManualClock::new());
        let service = Service::start(settings, components).await.unwrap();
        let (stop, shutdown) = Shutdown::new();
        let handle = service.handle();
        Self { handle, stop, running: tokio::spawn(service.run(shutdown)) }
    }

    fn address(&self) -> String {
        self.handle.address.to_string()
    }

    async fn init(&self, cluster: ClusterId) -> Result<bool, tonic::Status> {
        let mut admin = AdminClient::new(channel(&self.address()).await);
        let made = admin.init(request(cluster)).await;
        made.map(Response::into_inner).map(|made| made.is_new)
    }

    async fn health(&self, service: &str) -> ServingStatus {
        let mut health = HealthClient::new(channel(&self.address()).await);
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.unwrap().into_inner().status()
    }

    async fn ready(&self) {
        timeout(DEADLINE, self.handle.readiness.wait_ready()).await.expect("ready in time");
    }

    async fn end(self) -> Result<(), Error> {
        timeout(DEADLINE, self.running).await.expect("it stops").unwrap()
    }
}

fn request(cluster: ClusterId) -> v1::InitRequest {
    v1::InitRequest {
        cluster_id: cluster.to_bytes().to_vec().into(),
        replication_factor: 2,
        min_write_replicas: Some(1),
    }
}

fn empty_store() -> Arc<dyn Engine> {
    Arc::new(MemoryEngine::new())
}

#[tokio::test]
async fn waiting_coordinator_answers_only_init_then_serves() {
    let waiting = Waiting::start(&empty_store(), settings()).await;
    let address = waiting.address();
    eventually("it says what it waits for", || async {
        let ready = http_get(&waiting.handle, "/readyz").await;
        ready.starts_with("HTTP/1.1 503") && ready.contains("waits for init")
    })
    .await;
    assert!(http_get(&waiting.handle, "/healthz").await.starts_with("HTTP/1.1 200"));
    for service in ["", "dfs.v1.Coordinator", "dfs.v1.Membership", "dfs.v1.Admin"] {
        assert_eq!(waiting.health(service).await, ServingStatus::NotServing, "{service}");
    }
    // One connection is used throughout.
    let connection = channel(&address).await;
    let (mut admin, mut client) =
        (AdminClient::new(connection.clone()), CoordinatorClient::new(connection));
    let planned = client.upload_file(upload_request("/f", 1)).await;
    let status = planned.expect_err("there is no cluster");
    let failure = Failure::from_status(&status);
    assert_eq!(failure.code, ErrorCode::Unavailable);
    assert!(failure.message.contains("waits for init") && failure.retry_after.is_some());
    assert_eq!(failure.detail, Some(Detail::Uninitialised));
    let status = admin.cluster_status(v1::ClusterStatusRequest::default()).await;
    assert_eq!(refused(status), ErrorCode::Unavailable);
    let node = FakeDataNode::serve(1, &address, &Neighbours::default()).await;
    assert_eq!(refused(node.register("secret").await), ErrorCode::Unavailable);
    for wrong in [
        v1::InitRequest::default(),
        v1::InitRequest { replication_factor: 0, ..request(OURS) },
        v1::InitRequest { min_write_replicas: Some(3), ..request(OURS) },
    ] {
        assert_eq!(refused(admin.init(wrong).await), ErrorCode::InvalidArgument);
    }

    assert!(admin.init(request(OURS)).await.unwrap().into_inner().is_new);
    waiting.ready().await;
    for service in ["dfs.v1.Coordinator", "dfs.v1.Membership", "dfs.v1.Admin"] {
        assert_eq!(waiting.health(service).await, ServingStatus::Serving, "{service}");
    }
    node.register("secret").await.unwrap();
    node.beat().await;
    let mut admin = AdminClient::new(channel(&address).await);
    let status = admin.cluster_status(v1::ClusterStatusRequest::default()).await.unwrap();
    let status = status.into_inner();
    assert_eq!(status.cluster_id, OURS.to_bytes()[..]);
    assert_eq!((status.replication_factor, status.min_write_replicas), (2, 1));
    assert_eq!(status.nodes.len(), 1);
    // Idempotent; another id is refused.
    assert!(!waiting.init(OURS).await.unwrap());
    let other = waiting.init(ClusterId(8)).await.unwrap_err();
    assert_eq!(Failure::from_status(&other).code, ErrorCode::WrongCluster);
    for id in [OURS, ClusterId(8)] {
        assert!(other.message().contains(&id.to_string()), "{other:?}");
    }
    waiting.stop.stop();
    waiting.end().await.unwrap();
}

#[tokio::test]
async fn one_init_releases_all_waiting_coordinators() {
    let store = empty_store();
    let waiting = [(); 3].map(|()| Waiting::start(&store, settings()));
    let waiting = futures_util::future::join_all(waiting).await;
    let calls = [waiting[0].init(OURS), waiting[1].init(OURS)];
    let results = futures_util::future::join_all(calls).await;
    let new = results.into_iter().filter(|result| *result.as_ref().unwrap()).count();
    assert_eq!(new, 1, "it is created once");
    for one in &waiting {
        one.ready().await;
    }
    for one in waiting {
        one.stop.stop();
        one.end().await.unwrap();
    }
}

#[tokio::test]
async fn configured_cluster_id_is_the_only_one_created_or_served() {
    let store = empty_store();
    let ours = Settings { cluster_id: OURS.to_string(), ..settings() };
    let waiting = Waiting::start(&store, ours).await;
    let other = waiting.init(ClusterId(8)).await.unwrap_err();
    assert_eq!(Failure::from_status(&other).code, ErrorCode::WrongCluster);
    for id in [OURS, ClusterId(8)] {
        assert!(other.message().contains(&id.to_string()), "{other:?}");
    }
    // Another coordinator of the store is not restricted to that id.
    let unrestricted = Waiting::start(&store, settings()).await;
    assert!(unrestricted.init(ClusterId(8)).await.unwrap());
    unrestricted.ready().await;
    let ended = waiting.end().await.expect_err("it does not serve another cluster");
    assert_eq!(ended.code(), ErrorCode::WrongCluster);
    // Nor does it wait over a store that holds another cluster.
    let wanted = Settings { cluster_id: OURS.to_string(), await_init: true, ..settings() };
    let started = Service::start(wanted, components(&store, &ManualClock::new())).await;
    assert_eq!(started.unwrap_err().code(), ErrorCode::WrongCluster);
}

#[tokio::test]
async fn waiting_coordinator_can_be_stopped_and_waits_only_if_configured() {
    let store = empty_store();
    let waiting = Waiting::start(&store, settings()).await;
    waiting.stop.stop();
    waiting.end().await.unwrap();
    let started = Service::start(settings(), components(&store, &ManualClock::new())).await;
    assert!(matches!(started, Err(Error::NotInitialised)), "{started:?}");
}

//! The complete operator, on the test's clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_operator::controller::{Operator, Pod};
use dfs_operator::coordinator::Coordinator;
use dfs_runtime::{Metrics, Readiness, Shutdown, Trigger};
use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::api_server::ApiServer;
use crate::cluster::{FakeCoordinator, condition, controllers, dfs_cluster, is_ready, until};

pub(crate) struct Running {
    metrics: Metrics,
    trigger: Trigger,
    task: JoinHandle<()>,
    others: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.others.abort();
    }
}

pub(crate) fn start(api: &ApiServer, coordinator: Arc<dyn Coordinator>) -> Running {
    start_in(api, coordinator, Vec::new())
}

/// Starts an operator of these namespaces.
pub(crate) fn start_in(
    api: &ApiServer,
    coordinator: Arc<dyn Coordinator>,
    namespaces: Vec<String>,
) -> Running {
    let metrics = Metrics::new("operator");
    let pod = Pod { name: "op-0".to_owned(), namespace: "op".to_owned(), is_in_cluster: true };
    let operator = Operator::new(api.client(), coordinator, &metrics, namespaces, &pod);
    let (trigger, shutdown) = Shutdown::new();
    let task = tokio::spawn(async move {
        operator.run(&Readiness::new("starting"), &shutdown).await;
    });
    Running { metrics, trigger, task, others: tokio::spawn(controllers(api.clone())) }
}

#[tokio::test(start_paused = true)]
async fn c20_cluster_is_created_and_then_nothing_is_written() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let coordinator = FakeCoordinator::new(&api);
    let running = start(&api, Arc::<FakeCoordinator>::clone(&coordinator));
    until("readiness", || is_ready(&api, "data")).await;
    until("no more reconciles", || {
        condition(&api, "data", "Reconciling").is_some_and(|(status, _)| status == "False")
    })
    .await;
    tokio::time::sleep(Duration::from_mins(1)).await;

    api.forget_calls();
    coordinator.pictures.store(0, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_mins(10)).await;
    let writes: Vec<_> = api.writes().into_iter().map(|call| (call.method, call.path)).collect();
    assert_eq!(writes, []);
    let pictures = coordinator.pictures.load(Ordering::Relaxed);
    assert!((5..=20).contains(&pictures), "{pictures} calls in 10 minutes");
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn c36_all_objects_are_applied_by_one_manager() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let _running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    for call in api.writes() {
        let is_event = call.path.contains("/events");
        assert!(is_event || call.query.contains("fieldManager=dfs-operator"), "{call:?}");
        if call.method == Method::PATCH && !call.path.ends_with("/dfsclusters/data") && !is_event {
            assert!(call.content_type.contains("apply-patch"), "{call:?}");
            assert!(call.query.contains("force=true"), "{call:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn c50_join_secret_is_never_disclosed() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let _running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    let secrets = api.writes().into_iter().filter(|call| call.path.ends_with("/secrets"));
    let bodies: Vec<_> = secrets.map(|call| call.body).collect();
    assert_eq!(bodies.len(), 1, "it is created once");
    let secret = bodies[0]["stringData"]["join-secret"].as_str().unwrap();
    assert!(secret.len() >= 32);
    for call in api.writes().iter().filter(|call| !call.path.ends_with("/secrets")) {
        assert!(!call.body.to_string().contains(secret), "{}", call.path);
    }
}

#[tokio::test(start_paused = true)]
async fn c21_c23_events_are_recorded_once() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let _running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    let events: Vec<_> = api
        .writes()
        .into_iter()
        .filter(|call| call.path.contains("/events"))
        .map(|call| {
            assert_eq!(call.body["regarding"]["kind"], "DfsCluster");
            call.body["reason"].as_str().unwrap_or_default().to_owned()
        })
        .collect();
    for reason in ["Creating", "Initialised", "Serving"] {
        let count = events.iter().filter(|there| *there == reason).count();
        assert_eq!(count, 1, "{reason} in {events:?}");
    }
    assert_eq!(events.iter().filter(|there| *there == "DatanodeAdmitted").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn c24_events_name_cluster_and_pod() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let _running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    let mut pods = Vec::new();
    for call in api.writes().iter().filter(|call| call.path.contains("/events")) {
        assert_eq!(call.body["regarding"]["name"], "data");
        if call.body["reason"] == "DatanodeAdmitted" {
            assert_eq!(call.body["related"]["kind"], "Pod");
            pods.push(call.body["related"]["name"].as_str().unwrap().to_owned());
        }
    }
    pods.sort();
    assert_eq!(pods, ["data-datanode-0", "data-datanode-1", "data-datanode-2"]);
}

#[tokio::test(start_paused = true)]
async fn c52_panic_affects_no_other_cluster() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let running = start(&api, FakeCoordinator::panicking(&api));
    until("a panic", || {
        running.metrics.render().contains("reconcile_errors_total{reason=\"panic\"}")
    })
    .await;
    // A second cluster proceeds to its own panic.
    let mut other = dfs_cluster("other");
    other["metadata"]["uid"] = "other".into();
    api.put("dfsclusters", other);
    assert!(!running.task.is_finished());
    let panics = running.metrics.render();
    let line = panics.lines().find(|line| line.contains("reconcile_total{result=\"panic\"}"));
    let count: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    tokio::time::sleep(Duration::from_mins(10)).await;
    let after = running.metrics.render();
    let line = after.lines().find(|line| line.contains("reconcile_total{result=\"panic\"}"));
    let later: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(later > count && later < count + 30.0, "retried with backoff: {later}");
}

#[tokio::test(start_paused = true)]
async fn refused_object_is_reported() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    api.refuse("services", 422);
    let _running = start(&api, FakeCoordinator::new(&api));
    until("the condition", || {
        condition(&api, "data", "Stalled") == Some(("True".to_owned(), "ApplyRefused".to_owned()))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn malformed_object_is_reported_and_delays_no_other() {
    let api = ApiServer::default();
    let mut broken = dfs_cluster("broken");
    broken["spec"] = json!({"datanodes": {"replicas": "many"}});
    api.put("dfsclusters", broken);
    api.put("dfsclusters", dfs_cluster("data"));
    let _running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    assert_eq!(
        condition(&api, "broken", "SpecValid"),
        Some(("False".to_owned(), "VersionUnsupported".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn c34_shutdown_releases_the_lease() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let mut running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    running.trigger.stop();
    tokio::time::timeout(Duration::from_secs(10), &mut running.task).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn c38_deleted_cluster_is_released_with_its_metrics() {
    let api = ApiServer::default();
    let mut cluster = dfs_cluster("data");
    cluster["spec"]["deletionPolicy"] = "Delete".into();
    cluster["spec"]["deletionConfirmation"] = "data".into();
    api.put("dfsclusters", cluster);
    let running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    assert!(running.metrics.render().contains("dfs_cluster_nodes{name=\"data\""));
    let mut cluster = api.get("dfsclusters", "data").unwrap();
    assert_eq!(cluster["metadata"]["finalizers"], json!(["dfs.io/finalizer"]));
    cluster["metadata"]["deletionTimestamp"] = "2027-01-01T00:00:00Z".into();
    api.put("dfsclusters", cluster);
    api.forget_calls();
    until("the deletion", || api.get("dfsclusters", "data").is_none()).await;
    assert!(api.get("secrets", "data-join").is_none());
    assert!(api.get("persistentvolumeclaims", "data-metadata").is_none());
    let writes = api.writes();
    let deletes = writes.iter().filter(|call| call.method == Method::DELETE);
    assert!(deletes.clone().count() >= 4, "{writes:?}");
    for call in deletes {
        assert!(call.body["preconditions"]["uid"].is_string(), "c39: {call:?}");
    }
    until("the removal of its metrics", || !running.metrics.render().contains("name=\"data\""))
        .await;
}

//! Single steps against the API server.

use dfs_operator::apply::apply;
use dfs_operator::decide::Action;
use dfs_operator::kind::{Kind, Object, Target};
use dfs_operator::observe::observe;
use dfs_operator::observed::Observed;
use dfs_operator::publish;
use http::Method;
use serde_json::json;

use crate::api_server::ApiServer;
use crate::cluster::{FakeCoordinator, dfs_cluster};

async fn seen(api: &ApiServer) -> Observed {
    let coordinator = FakeCoordinator::new(api);
    observe(&api.client(), coordinator.as_ref(), None, "ns", "data").await.unwrap().unwrap()
}

async fn act(api: &ApiServer, action: Action) -> Result<(), String> {
    let (seen, coordinator) = (seen(api).await, FakeCoordinator::new(api));
    let (_, _, error) = apply(&api.client(), coordinator.as_ref(), &seen, &[action]).await;
    error.map_or(Ok(()), |error| Err(error.to_string()))
}

fn pod(uid: &str) -> serde_json::Value {
    json!({"metadata": {"name": "p", "namespace": "ns", "uid": uid}})
}

#[tokio::test]
async fn c39_recreated_object_is_not_deleted() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let target = |uid: &str| Target { kind: Kind::Pod, name: "p".into(), uid: uid.into() };
    api.put("pods", pod("new"));
    act(&api, Action::RestartPod(target("old"))).await.unwrap();
    assert!(api.get("pods", "p").is_some());
    act(&api, Action::RestartPod(target("new"))).await.unwrap();
    assert!(api.get("pods", "p").is_none());
    act(&api, Action::RestartPod(target("new"))).await.unwrap();
}

#[tokio::test]
async fn object_of_another_owner_is_not_adopted() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let value = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ours": true},
    });
    let object = Box::new(Object { kind: Kind::Service, name: "s".into(), value });
    let apply = Action::Apply { object, is_there: false };
    api.put("services", json!({"metadata": {"name": "s", "namespace": "ns"}, "spec": {}}));
    let error = act(&api, apply.clone()).await.unwrap_err();
    assert!(error.contains("Service s belongs to nobody"), "{error}");
    api.remove("services", "s");
    act(&api, apply).await.unwrap();
    assert_eq!(api.get("services", "s").unwrap()["spec"]["ours"], true);
}

#[tokio::test]
async fn finalizers_of_others_survive() {
    let api = ApiServer::default();
    let mut cluster = dfs_cluster("data");
    cluster["metadata"]["finalizers"] = json!(["theirs/f"]);
    api.put("dfsclusters", cluster);
    act(&api, Action::AddFinalizer).await.unwrap();
    let finalizers = || api.get("dfsclusters", "data").unwrap()["metadata"]["finalizers"].clone();
    assert_eq!(finalizers(), json!(["theirs/f", "dfs.io/finalizer"]));
    act(&api, Action::RemoveFinalizer).await.unwrap();
    assert_eq!(finalizers(), json!(["theirs/f"]));
}

#[tokio::test]
async fn existing_join_secret_is_not_changed() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    act(&api, Action::CreateJoinSecret).await.unwrap();
    let first = api.get("secrets", "data-join").unwrap();
    act(&api, Action::CreateJoinSecret).await.unwrap();
    assert_eq!(api.get("secrets", "data-join").unwrap(), first);
    let join = seen(&api).await.join.unwrap();
    assert!(join.has_secret && join.cluster_id.is_some());
}

#[tokio::test]
async fn c10_status_is_written_through_its_subresource_and_only_on_change() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    let status = dfs_crd::ClusterStatus { replicas: 3, ..dfs_crd::ClusterStatus::default() };
    assert!(publish::status(&api.client(), &seen(&api).await, &status).await.unwrap());
    assert!(!publish::status(&api.client(), &seen(&api).await, &status).await.unwrap());
    let writes = api.writes();
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].method, Method::PATCH);
    assert!(writes[0].path.ends_with("/dfsclusters/data/status"));
    assert!(writes[0].body.get("spec").is_none());
}

#[tokio::test]
async fn observation_of_a_missing_cluster_is_none() {
    let api = ApiServer::default();
    let coordinator = FakeCoordinator::new(&api);
    let seen = observe(&api.client(), coordinator.as_ref(), None, "ns", "data").await.unwrap();
    assert!(seen.is_none());
    assert!(api.writes().is_empty());
}

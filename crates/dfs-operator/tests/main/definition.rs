//! The resource definition of the API server, and the operator's reaction to it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::cluster::{FakeCoordinator, condition, dfs_cluster, is_ready, until};
use crate::operator::{start, start_in};

const CRDS: &str = "customresourcedefinitions";

/// Returns the definition of an operator that did not know this field.
fn older() -> Value {
    let mut crd = serde_json::to_value(dfs_crd::crd()).unwrap();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    crd.pointer_mut(spec).unwrap().as_object_mut().unwrap().remove("stopped");
    crd
}

fn looks(api: &ApiServer) -> usize {
    api.calls().iter().filter(|call| call.path.contains(CRDS)).count()
}

#[tokio::test(start_paused = true)]
async fn older_definition_is_reported_and_blocks_creation_until_updated() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    api.put(CRDS, older());
    let _running = start(&api, FakeCoordinator::new(&api));
    until("the condition", || {
        let expected = ("True".to_owned(), "DefinitionOutdated".to_owned());
        condition(&api, "data", "Stalled") == Some(expected)
    })
    .await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    for call in api.writes() {
        let is_status = call.path.ends_with("/status") || call.path.contains("/events");
        assert!(is_status, "{} {}", call.method, call.path);
    }
    api.put(CRDS, serde_json::to_value(dfs_crd::crd()).unwrap());
    until("readiness", || is_ready(&api, "data")).await;
    assert!(api.calls().iter().all(|call| !call.path.contains(CRDS) || !call.is_write()), "C31");
}

#[tokio::test(start_paused = true)]
async fn operator_of_some_namespaces_does_not_read_the_definition() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    api.put(CRDS, older());
    let _running = start_in(&api, FakeCoordinator::new(&api), vec!["ns".to_owned()]);
    until("readiness", || is_ready(&api, "data")).await;
    assert_eq!(looks(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn unreadable_definition_blocks_nothing() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    assert!(!json!(api.get(CRDS, dfs_crd::CRD_NAME)).is_object());
    let _running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    assert!(looks(&api) > 0);
}

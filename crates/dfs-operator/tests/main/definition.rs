//! The definition of the resource that the API server has, and what the operator makes of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::cluster::{FakeCoordinator, condition, dfs_cluster, is_ready, until};
use crate::operator::{start, start_in};

const CRDS: &str = "customresourcedefinitions";

/// The definition of an operator that did not know this field.
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
async fn an_older_definition_is_told_and_nothing_is_made_until_it_is_mended() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    api.put(CRDS, older());
    let _running = start(&api, FakeCoordinator::new(&api));
    until("the condition", || {
        let told = ("True".to_owned(), "DefinitionOutdated".to_owned());
        condition(&api, "data", "Stalled") == Some(told)
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
async fn who_serves_some_namespaces_does_not_ask_for_what_it_may_not_see() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    api.put(CRDS, older());
    let _running = start_in(&api, FakeCoordinator::new(&api), vec!["ns".to_owned()]);
    until("readiness", || is_ready(&api, "data")).await;
    assert_eq!(looks(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_cannot_be_read_holds_nothing_up() {
    let api = ApiServer::default();
    api.put("dfsclusters", dfs_cluster("data"));
    assert!(!json!(api.get(CRDS, dfs_crd::CRD_NAME)).is_object());
    let _running = start(&api, FakeCoordinator::new(&api));
    until("readiness", || is_ready(&api, "data")).await;
    assert!(looks(&api) > 0);
}

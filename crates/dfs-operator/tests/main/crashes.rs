//! E33: the operator dies at each change that it makes, and the final state is the same.
//!
//! Each scenario runs once without a crash, counting the changes: writes to the API server and
//! calls to coordinators. It then runs again for each change, and the operator dies when that
//! change is made, before the reply. Another one starts without any knowledge, and must reach the
//! same final state.

use serde_json::{Value, json};

use crate::toy::Toy;

/// Returns a running cluster to start from.
async fn running(spec: Value) -> Toy {
    let toy = Toy::new(spec);
    toy.settle(None).await;
    assert!(toy.holds("Ready") && !toy.holds("Reconciling"));
    toy
}

/// Runs a scenario with a crash at each of its changes. Returns the final state.
async fn each_crash(start: &Toy, change: impl Fn(&mut Toy)) -> Toy {
    let begin = || {
        let mut toy = start.fork();
        change(&mut toy);
        toy
    };
    let whole = begin();
    let (changes, _) = whole.settle(None).await;
    assert!(changes > 1, "nothing was changed");
    let end = whole.still();
    for crash in 1..=changes {
        let toy = begin();
        let (_, is_cut) = toy.settle(Some(crash)).await;
        assert!(is_cut, "it was not cut off at change {crash} of {changes}");
        let other = toy.still();
        for (name, object) in &end {
            assert_eq!(other.get(name), Some(object), "{name}, after a crash at change {crash}");
        }
        let more: Vec<_> = other.keys().filter(|name| !end.contains_key(*name)).collect();
        assert!(more.is_empty(), "{more:?} after a crash at change {crash} of {changes}");
    }
    whole
}

/// Returns a version that this operator manages.
fn patch(number: u32) -> String {
    let (minor, _) = env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap();
    format!("{minor}.{number}")
}

fn claims(toy: &Toy) -> usize {
    toy.api.list("persistentvolumeclaims").len()
}

#[tokio::test(start_paused = true)]
async fn e33_crashes_during_creation() {
    let start = Toy::new(json!({}));
    let end = each_crash(&start, |_| {}).await;
    assert!(end.holds("Ready"));
    assert_eq!(claims(&end), 4);
}

#[tokio::test(start_paused = true)]
async fn e33_crashes_during_an_upgrade() {
    let mut start = running(json!({"maintenance": {"update": {"nodeTimeoutSeconds": 60}}})).await;
    start.one_at_a_time = true;
    let end =
        each_crash(&start, |toy| toy.edit(json!({"spec": {"image": {"tag": patch(1)}}}))).await;
    assert!(end.holds("Ready") && !end.holds("Upgrading"));
    for pod in end.api.list("pods") {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
        assert!(image.ends_with(&patch(1)), "{image}");
    }
}

#[tokio::test(start_paused = true)]
async fn e33_crashes_while_a_bad_image_is_reverted() {
    let mut start = running(json!({"maintenance": {"update": {"nodeTimeoutSeconds": 60}}})).await;
    start.one_at_a_time = true;
    let probe = start.fork();
    probe.edit(json!({"spec": {"image": {"tag": patch(6)}}}));
    probe.settle(None).await;
    let set = probe.api.get("statefulsets", "data-datanode").unwrap();
    let bad = set["spec"]["template"]["metadata"]["annotations"]["dfs.io/revision"].clone();
    start.bad.insert(bad.as_str().unwrap().to_owned());
    start.edit(json!({"spec": {"image": {"tag": patch(6)}}}));
    start.settle(None).await;
    assert!(!start.holds("Ready"));
    let end =
        each_crash(&start, |toy| toy.edit(json!({"spec": {"image": {"tag": patch(0)}}}))).await;
    assert!(end.holds("Ready") && !end.holds("Upgrading"));
}

#[tokio::test(start_paused = true)]
async fn e33_crashes_during_a_scale_up_with_fewer_replicas() {
    let start = running(json!({})).await;
    let end = each_crash(&start, |toy| {
        toy.edit(json!({"spec": {"datanodes": {"replicas": 5}, "replicationFactor": 2}}));
    })
    .await;
    assert!(end.holds("Ready"));
    assert_eq!((end.replication(), claims(&end)), ((2, 2), 6));
}

#[tokio::test(start_paused = true)]
async fn e33_crashes_while_deleted_objects_are_recreated() {
    let start = running(json!({})).await;
    let end = each_crash(&start, |toy| {
        for plural in ["services", "configmaps", "networkpolicies", "statefulsets", "deployments"] {
            for object in toy.api.list(plural) {
                toy.api.remove(plural, object["metadata"]["name"].as_str().unwrap());
            }
        }
    })
    .await;
    assert!(end.holds("Ready"));
    assert_eq!(claims(&end), 4);
}

#[tokio::test(start_paused = true)]
async fn e33_crashes_during_a_stop() {
    let start = running(json!({})).await;
    let end = each_crash(&start, |toy| {
        toy.edit(json!({"spec": {
            "stopped": true, "security": {"networkPolicy": {"enabled": false}},
        }}));
    })
    .await;
    assert_eq!((end.api.list("pods").len(), claims(&end)), (0, 4));
    let end = each_crash(&end, |toy| toy.edit(json!({"spec": {"stopped": false}}))).await;
    assert!(end.holds("Ready"));
}

#[tokio::test(start_paused = true)]
async fn e33_crashes_during_deletion() {
    let start = running(json!({"deletionPolicy": "Delete", "deletionConfirmation": "data"})).await;
    for is_kept in [true, false] {
        // A last-minute change of the policy keeps everything.
        let policy = if is_kept { "Retain" } else { "Delete" };
        let end = each_crash(&start, |toy| {
            toy.edit(json!({
                "metadata": {"deletionTimestamp": "2027-01-01T00:00:00Z"},
                "spec": {"deletionPolicy": policy},
            }));
        })
        .await;
        assert!(end.api.get("dfsclusters", "data").is_none());
        assert_eq!(claims(&end), if is_kept { 4 } else { 0 });
        assert_eq!(end.api.list("secrets").len(), usize::from(is_kept));
    }
}

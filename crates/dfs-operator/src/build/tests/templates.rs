//! C68: what restarts pods, and what must not.

use serde_json::{Value, json};

use super::fixtures::{FULL, MINIMAL, cluster, container, find, render, workloads};
use crate::build::{REVISION, keep_template};
use crate::kind::Kind;

fn revision(workload: &Value) -> &str {
    workload["spec"]["template"]["metadata"]["annotations"][REVISION].as_str().unwrap()
}

/// Returns the revisions of coordinators and datanodes.
fn revisions(cluster: &dfs_crd::DfsCluster) -> [String; 2] {
    let objects = render(cluster);
    let revisions: Vec<String> =
        workloads(&objects).into_iter().map(|workload| revision(workload).to_owned()).collect();
    revisions.try_into().unwrap()
}

#[test]
fn c68_new_operator_restarts_nothing() {
    // Resources as stored by older operators. A different value here restarts every pod of every
    // user as soon as the operator is upgraded.
    let stored = |yaml: &str| {
        let mut cluster = cluster(yaml);
        cluster.spec.image.tag = "0.1.0".to_owned();
        revisions(&cluster)
    };
    assert_eq!(stored(MINIMAL), ["7e8dbfb4189653a9", "73c6f94e0e2f20d4"]);
    assert_eq!(stored(FULL), ["622686051e61c7cc", "a5b1108f882de6cf"]);
}

#[test]
fn e29_change_restarts_only_the_affected_pods() {
    let before = revisions(&cluster(MINIMAL));
    let changed = |change: fn(&mut dfs_crd::DfsCluster)| {
        let mut cluster = cluster(MINIMAL);
        change(&mut cluster);
        let after = revisions(&cluster);
        [after[0] != before[0], after[1] != before[1]]
    };
    assert_eq!(changed(|c| c.spec.image.tag = "9.9.9".to_owned()), [true, true]);
    assert_eq!(
        changed(|c| {
            let annotations = c.metadata.annotations.get_or_insert_default();
            annotations.insert(dfs_crd::RESTARTED_AT.to_owned(), "now".to_owned());
        }),
        [true, true]
    );
    assert_eq!(
        changed(|c| c.spec.coordinator.resources.limits.memory = dfs_crd::Quantity::new("1Gi")),
        [true, false]
    );
    assert_eq!(
        changed(|c| c.spec.datanodes.resources.limits.memory = dfs_crd::Quantity::new("1Gi")),
        [false, true]
    );
    assert_eq!(changed(|c| c.spec.datanodes.storage.reserved_percent = 9), [false, true]);
    // None of these concerns a running process.
    assert_eq!(changed(|c| c.spec.datanodes.replicas = 9), [false, false]);
    assert_eq!(changed(|c| c.spec.replication_factor = 1), [false, false]);
    assert_eq!(changed(|c| c.spec.monitoring.service_monitor.enabled = true), [false, false]);
    assert_eq!(changed(|c| c.spec.security.network_policy.enabled = false), [false, false]);
}

#[test]
fn c68_template_stays_as_rendered() {
    let objects = render(&cluster(MINIMAL));
    let mut old = find(&objects, Kind::Deployment, "demo-coordinator").clone();
    // As rendered by an older operator, and edited by somebody since.
    old["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["as before"]);
    crate::build::template::remember(&mut old);
    let mut there = old.clone();
    there["spec"]["template"]["spec"]["containers"][0]["image"] = json!("meddled");

    let mut wanted = find(&objects, Kind::Deployment, "demo-coordinator").clone();
    keep_template(&there, &mut wanted);
    assert_eq!(wanted, old, "the old template, without the edit");

    // A request of the user is rendered again.
    let mut cluster = cluster(MINIMAL);
    cluster.spec.image.tag = "9.9.9".to_owned();
    let objects = render(&cluster);
    let mut wanted = find(&objects, Kind::Deployment, "demo-coordinator").clone();
    let fresh = wanted.clone();
    keep_template(&there, &mut wanted);
    assert_eq!(wanted, fresh);
    // So is everything without a remembered template.
    there["metadata"]["annotations"] = json!({});
    keep_template(&there, &mut wanted);
    assert_eq!(wanted, fresh);
}

#[test]
fn overlay_is_applied_last_but_overrides_nothing_of_the_operator() {
    let mut cluster = cluster(FULL);
    for overlay in
        [&mut cluster.spec.coordinator.pod_template, &mut cluster.spec.datanodes.pod_template]
    {
        // As an API server without the rules would accept it.
        overlay.labels.insert("app.kubernetes.io/instance".to_owned(), "other".to_owned());
        overlay.annotations.insert(REVISION.to_owned(), "other".to_owned());
        overlay.extra_env[0].name = "POD_NAME".to_owned();
    }
    let objects = render(&cluster);
    for workload in workloads(&objects) {
        let template = &workload["spec"]["template"];
        assert_eq!(template["metadata"]["labels"]["team"], "storage");
        assert_eq!(template["metadata"]["labels"]["app.kubernetes.io/instance"], "demo");
        assert_ne!(revision(workload), "other");
        let pod = &template["spec"];
        assert_eq!(pod["nodeSelector"], json!({ "disk": "fast" }));
        assert_eq!(pod["topologySpreadConstraints"].as_array().unwrap().len(), 1);
        assert_eq!(pod["topologySpreadConstraints"][0]["topologyKey"], "rack");
        assert!(pod["affinity"]["nodeAffinity"].is_object());
        assert_eq!(pod["affinity"].get("podAntiAffinity"), None);
        assert_eq!(pod["terminationGracePeriodSeconds"], 60);
        assert_eq!(pod["serviceAccountName"], "own-account");
        let variables = container(workload)["env"].as_array().unwrap();
        let named = variables.iter().filter(|variable| variable["name"] == "POD_NAME");
        assert!(named.eq(&[json!({ "name": "POD_NAME", "valueFrom": { "fieldRef": {
            "apiVersion": "v1", "fieldPath": "metadata.name" } } })]));
    }
    assert!(objects.iter().all(|object| object.kind != Kind::ServiceAccount));
}

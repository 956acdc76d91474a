//! Possible edits of an existing cluster: every field of the spec is changed by some edit.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::world::cluster;
use crate::decide::validate;

/// Fields that the API server lets nobody change in an existing cluster.
const IMMUTABLE: [&str; 6] = [
    "coordinator.metadata.embedded.storage.storageClassName",
    "coordinator.metadata.engine",
    "coordinator.metadata.etcd.endpoints",
    "coordinator.metadata.etcd.tlsSecretName",
    "datanodes.storage.storageClassName",
    "datanodes.storage.volumesPerNode",
];

/// Returns a version that this operator manages.
pub(super) fn patch(number: u32) -> String {
    let (minor, _) = env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap();
    format!("{minor}.{number}")
}

fn overlays() -> Vec<Value> {
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
        ]}],
    }}});
    vec![
        json!({"labels": {"team": "storage"}, "annotations": {"example.org/note": "hello"}}),
        json!({"nodeSelector": {"disk": "fast"}, "affinity": affinity}),
        json!({"tolerations": [{"key": "storage", "operator": "Exists"}]}),
        json!({"topologySpreadConstraints": [
            {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"},
        ]}),
        json!({"priorityClassName": "high", "serviceAccountName": "own"}),
        json!({"terminationGracePeriodSeconds": 60}),
        json!({"extraEnv": [{"name": "RUST_LOG", "value": "debug"}]}),
    ]
}

/// Returns edits that can be carried out, or are refused in part.
pub(super) fn edits() -> Vec<Value> {
    let resources = json!({
        "requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"},
    });
    let selectors = json!([{"podSelector": {"matchLabels": {"dfs-client": "true"}}}]);
    let digest = format!("sha256:{}", "ab".repeat(32));
    let mut edits = vec![
        json!({"image": {"tag": patch(1)}}),
        json!({"image": {"tag": patch(2), "repository": "registry.example.org/dfs"}}),
        json!({"image": {"digest": digest, "pullPolicy": "Always", "pullSecrets": ["registry"]}}),
        json!({"replicationFactor": 1}),
        json!({"replicationFactor": 2, "minWriteReplicas": 2}),
        json!({"failureDomain": {"policy": "Required"}}),
        json!({"failureDomain": {"topologyKey": "topology.kubernetes.io/zone"}}),
        json!({"coordinator": {"relayStreams": 0}}),
        json!({"coordinator": {"resources": resources}}),
        json!({"coordinator": {"service": {"type": "NodePort", "annotations": {"a/b": "c"}}}}),
        json!({"coordinator": {"metadata": {"embedded": {"storage": {"size": "20Gi"}}}}}),
        json!({"datanodes": {"resources": resources}}),
        json!({"datanodes": {"replicas": 4}}),
        json!({"datanodes": {"replicas": 5}, "image": {"tag": patch(3)}}),
        json!({"datanodes": {"storage": {"size": "2Gi"}}}),
        json!({"datanodes": {"storage": {"reservedPercent": 9}}}),
        json!({"security": {"networkPolicy": {"clientSelectors": selectors}}}),
        json!({"security": {"networkPolicy": {"enabled": false}}}),
        json!({"monitoring": {"serviceMonitor": {
            "enabled": true, "intervalSeconds": 15, "labels": {"release": "prometheus"},
        }}}),
        json!({"maintenance": {"update": {"strategy": "OnDelete"}}}),
        json!({"maintenance": {"update": {"requireFullyReplicated": false}}}),
        json!({"maintenance": {"update": {"nodeTimeoutSeconds": 600}}}),
        json!({"stopped": true}),
        json!({"deletionPolicy": "Delete"}),
        json!({"deletionPolicy": "Delete", "deletionConfirmation": "data"}),
    ];
    for overlay in overlays() {
        edits.push(json!({"coordinator": {"podTemplate": overlay}}));
        edits.push(json!({"datanodes": {"podTemplate": overlay}}));
    }
    edits
}

/// Returns edits that contradict themselves.
pub(super) fn nonsense() -> Vec<Value> {
    vec![
        json!({"replicationFactor": 7}),
        json!({"minWriteReplicas": 7}),
        json!({"coordinator": {"replicas": 2}}),
        json!({"coordinator": {"metadata": {"engine": "Etcd"}}}),
    ]
}

#[test]
fn every_field_is_covered_by_an_edit() {
    let mut edited = BTreeSet::new();
    for edit in edits() {
        assert_eq!(validate::spec(&cluster(edit.clone())), None, "{edit}");
        leaves("", &edit, &mut edited);
    }
    for edit in nonsense() {
        assert!(validate::spec(&cluster(edit.clone())).is_some(), "{edit}");
    }
    let fields: BTreeSet<String> = dfs_crd::fields().into_iter().map(|field| field.path).collect();
    let may_change = |path: &&String| !IMMUTABLE.contains(&path.as_str());
    let is_edited = |path: &&String| {
        let below = format!("{path}.");
        edited.iter().any(|edit| edit == *path || edit.starts_with(&below))
    };
    let left: Vec<_> = fields.iter().filter(may_change).filter(|path| !is_edited(path)).collect();
    // With the engine Embedded there is one coordinator.
    assert_eq!(left, ["coordinator.replicas"]);
}

fn leaves(path: &str, value: &Value, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, value, all);
            }
        }
        _ => drop(all.insert(path.to_owned())),
    }
}

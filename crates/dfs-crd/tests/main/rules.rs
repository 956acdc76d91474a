//! Every rule, with values that it accepts and refuses.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use kube::core::cel::Validator;
use serde_json::{Value, json};

use crate::{MINIMAL, root_schema, stored};

/// A change of the minimal manifest: path and value, or a path to remove.
type Change<'a> = (&'a str, Option<Value>);

fn manifest(changes: &[Change<'_>]) -> Value {
    let mut object: Value = serde_saphyr::from_str(MINIMAL).unwrap();
    for (path, value) in changes {
        let (parents, last) = path.rsplit_once('.').unwrap();
        let mut at = &mut object;
        for name in parents.split('.') {
            at = &mut at[name];
        }
        match value {
            Some(value) => at[last] = value.clone(),
            None => drop(at.as_object_mut().unwrap().remove(last)),
        }
    }
    object
}

/// Returns the errors of the API server on a create, or on an update of `old`.
fn refusals(object: &Value, old: Option<&Value>) -> Vec<String> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(root_schema);
    let schema = &*SCHEMA;
    let object = stored(schema, object.clone());
    let old = old.map(|old| stored(schema, old.clone()));
    match Validator::new().validate(schema, &object, old.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.message).collect(),
    }
}

/// A rule, identified by its message.
struct Case {
    message: &'static str,
    /// The existing object of an update; `None` for a create.
    old: Option<Vec<Change<'static>>>,
    accepted: Vec<Change<'static>>,
    refused: Vec<Change<'static>>,
}

fn set(path: &'static str, value: impl Into<Value>) -> Change<'static> {
    (path, Some(value.into()))
}

fn create(
    message: &'static str,
    accepted: Vec<Change<'static>>,
    refused: Vec<Change<'static>>,
) -> Case {
    Case { message, old: None, accepted, refused }
}

fn update(
    message: &'static str,
    old: Vec<Change<'static>>,
    accepted: Vec<Change<'static>>,
    refused: Vec<Change<'static>>,
) -> Case {
    Case { message, old: Some(old), accepted, refused }
}

fn etcd() -> Value {
    json!({ "endpoints": ["etcd-0:2379"] })
}

const ENGINE: &str = "spec.coordinator.metadata.engine";
const ETCD: &str = "spec.coordinator.metadata.etcd";
const STORAGE: &str = "spec.datanodes.storage";
const METADATA_STORAGE: &str = "spec.coordinator.metadata.embedded.storage";
const EMBEDDED: &str = "spec.coordinator.metadata.embedded";

fn cases() -> Vec<Case> {
    let size_kept = "`size` must be greater than or equal to its current value";
    let class_kept = "`storageClassName` is immutable";
    let storage = |fields: Value| {
        let mut all = json!({ "size": "10Gi" });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        vec![set(STORAGE, all)]
    };
    let metadata = |fields: Value| vec![set(EMBEDDED, json!({ "storage": fields }))];
    vec![
        create(
            "`metadata.name` must have at most 40 characters of a-z, 0-9 and -, start with a letter and not end with -",
            vec![set("metadata.name", "a".repeat(40))],
            vec![set("metadata.name", "a".repeat(41))],
        ),
        create(
            "`metadata.name` must have at most 40 characters of a-z, 0-9 and -, start with a letter and not end with -",
            vec![set("metadata.name", "a-1")],
            vec![set("metadata.name", "a.b")],
        ),
        create(
            "`deletionConfirmation` must be empty or the name of the cluster",
            vec![set("spec.deletionConfirmation", "demo")],
            vec![set("spec.deletionConfirmation", "other")],
        ),
        create(
            "`replicationFactor` must be at most `datanodes.replicas`: each replica needs a separate node",
            vec![set("spec.replicationFactor", 3)],
            vec![set("spec.replicationFactor", 4)],
        ),
        create(
            "`minWriteReplicas` must be at most `replicationFactor`",
            vec![set("spec.minWriteReplicas", 3)],
            vec![set("spec.minWriteReplicas", 4)],
        ),
        create(
            "`tag` must name a version, not `latest`: it moves, and pods would run different versions",
            vec![set("spec.image", json!({ "tag": "1.2.3" }))],
            vec![set("spec.image", json!({ "tag": "latest" }))],
        ),
        create(
            "`replicas` must be 1 with the engine Embedded: its store can be used by only one process",
            vec![set(
                "spec.coordinator",
                json!({ "replicas": 2, "metadata": { "engine": "Etcd", "etcd": etcd() } }),
            )],
            vec![set("spec.coordinator", json!({ "replicas": 2 }))],
        ),
        create(
            "`etcd` must be set if and only if the engine is Etcd",
            vec![set(ENGINE, "Etcd"), set(ETCD, etcd())],
            vec![set(ENGINE, "Etcd")],
        ),
        create(
            "`etcd` must be set if and only if the engine is Etcd",
            vec![set(ENGINE, "Embedded")],
            vec![set(ETCD, etcd())],
        ),
        create(
            "`requests.memory` must be at most `limits.memory`",
            vec![set("spec.datanodes.resources", json!({ "requests": { "memory": "512Mi" } }))],
            vec![set("spec.datanodes.resources", json!({ "requests": { "memory": "1Gi" } }))],
        ),
        create(
            "`requests.cpu` must be at most `limits.cpu`",
            vec![set("spec.coordinator.resources", json!({ "limits": { "cpu": "0.1" } }))],
            vec![set("spec.coordinator.resources", json!({ "limits": { "cpu": "50m" } }))],
        ),
        create(
            "`labels` must not contain keys of the operator: app.kubernetes.io/… and dfs.io/…",
            vec![set("spec.datanodes.podTemplate", json!({ "labels": { "team": "a" } }))],
            vec![set(
                "spec.datanodes.podTemplate",
                json!({ "labels": { "app.kubernetes.io/name": "a" } }),
            )],
        ),
        create(
            "`annotations` must not contain keys of the operator: dfs.io/…",
            vec![set("spec.coordinator.podTemplate", json!({ "annotations": { "a": "b" } }))],
            vec![set(
                "spec.coordinator.podTemplate",
                json!({ "annotations": { "dfs.io/revision": "a" } }),
            )],
        ),
        create(
            "`extraEnv` must not contain variables of the operator: POD_NAME, POD_IP, NODE_NAME, DFS_ZONE",
            vec![set(
                "spec.datanodes.podTemplate",
                json!({ "extraEnv": [{ "name": "RUST_LOG", "value": "debug" }] }),
            )],
            vec![set(
                "spec.datanodes.podTemplate",
                json!({ "extraEnv": [{ "name": "DFS_ZONE", "value": "z" }] }),
            )],
        ),
        create(
            "`size` must be at least 64Mi",
            storage(json!({ "size": "64Mi" })),
            storage(json!({ "size": "100" })),
        ),
        create(
            "`size` must be at least 64Mi",
            metadata(json!({ "size": "1Gi" })),
            metadata(json!({ "size": "1Mi" })),
        ),
        update(
            size_kept,
            vec![],
            storage(json!({ "size": "20Gi" })),
            storage(json!({ "size": "9Gi" })),
        ),
        update(
            size_kept,
            vec![],
            metadata(json!({ "size": "11Gi" })),
            metadata(json!({ "size": "1Gi" })),
        ),
        update(
            class_kept,
            storage(json!({ "storageClassName": "fast" })),
            storage(json!({ "storageClassName": "fast" })),
            storage(json!({ "storageClassName": "slow" })),
        ),
        update(
            class_kept,
            vec![],
            storage(json!({})),
            storage(json!({ "storageClassName": "fast" })),
        ),
        update(
            class_kept,
            vec![],
            metadata(json!({})),
            metadata(json!({ "storageClassName": "fast" })),
        ),
        update(
            "`volumesPerNode` is immutable",
            storage(json!({ "volumesPerNode": 2 })),
            storage(json!({ "volumesPerNode": 2 })),
            storage(json!({ "volumesPerNode": 3 })),
        ),
        update(
            "`engine` is immutable; `dfs metadata migrate` moves metadata",
            vec![],
            vec![set(ENGINE, "Embedded")],
            vec![set(ENGINE, "Etcd"), set(ETCD, etcd())],
        ),
        update(
            "`topologyKey` is immutable: a change would move all data",
            vec![],
            vec![set("spec.failureDomain", json!({ "policy": "Required" }))],
            vec![set(
                "spec.failureDomain",
                json!({ "topologyKey": "topology.kubernetes.io/zone" }),
            )],
        ),
    ]
}

#[test]
fn c07_each_rule_accepts_and_refuses() {
    for Case { message, old, accepted, refused } in cases() {
        let old = old.as_deref().map(manifest);
        assert_eq!(refusals(&manifest(&accepted), old.as_ref()), [""; 0], "{message}");
        assert_eq!(refusals(&manifest(&refused), old.as_ref()), [message], "{refused:?}");
    }
}

#[test]
fn c07_each_rule_has_a_case_and_a_message() {
    fn walk(schema: &Value, messages: &mut BTreeSet<String>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            messages.insert(rule["message"].as_str().expect("a message").to_owned());
        }
        for property in schema["properties"].as_object().into_iter().flatten() {
            walk(property.1, messages);
        }
    }
    let mut messages = BTreeSet::new();
    walk(&root_schema(), &mut messages);
    let tested: BTreeSet<String> = cases().iter().map(|case| case.message.to_owned()).collect();
    assert_eq!(messages, tested);
    let states_rule =
        |message: &String| message.contains("must") || message.contains("is immutable");
    assert!(messages.iter().all(states_rule), "{messages:?}");
}

#[test]
fn c09_immutable_fields_cannot_be_dropped_and_set_again() {
    let zone = set("spec.failureDomain", json!({ "topologyKey": "topology.kubernetes.io/zone" }));
    let engine = vec![set(ENGINE, "Etcd"), set(ETCD, etcd())];
    let metadata = |fields: Value| vec![set(EMBEDDED, json!({ "storage": fields }))];
    let parents_of_storage =
        vec![METADATA_STORAGE, EMBEDDED, "spec.coordinator.metadata", "spec.coordinator"];
    for (there, parents) in [
        (vec![zone], vec!["spec.failureDomain"]),
        (engine, vec!["spec.coordinator.metadata", "spec.coordinator"]),
        (metadata(json!({ "size": "20Gi" })), parents_of_storage.clone()),
        (metadata(json!({ "storageClassName": "fast" })), parents_of_storage),
    ] {
        let other = manifest(&there);
        for parent in parents {
            // A dropped parent gets its defaults: from a different value that is a change.
            let mut changes = there.clone();
            changes.push((parent, None));
            let dropped = manifest(&changes);
            assert_ne!(refusals(&dropped, Some(&other)), [""; 0], "{parent} of {there:?}");
        }
        // From a dropped parent to a different value is a change too, except that volumes may grow.
        let is_growth = there.iter().any(|(_, value)| {
            value.as_ref().is_some_and(|value| value["storage"]["size"] == "20Gi")
        });
        let set_anew = refusals(&other, Some(&manifest(&[])));
        assert_eq!(set_anew.is_empty(), is_growth, "{there:?}");
    }
}

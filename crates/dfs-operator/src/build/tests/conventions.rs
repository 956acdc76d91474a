//! Conventions, by number.

use serde_json::{Value, json};

use super::fixtures::{
    FULL, MINIMAL, arguments, cluster, container, find, full_embedded, id, inputs, render,
    workloads,
};
use crate::build::{Inputs, join_secret, objects};
use crate::kind::{Kind, Object};

fn all() -> Vec<Object> {
    let clusters = [cluster(MINIMAL), cluster(FULL), full_embedded()];
    clusters.iter().flat_map(render).collect()
}

#[test]
fn minimal_cluster_has_these_objects() {
    let objects = render(&cluster(MINIMAL));
    let names: Vec<String> =
        objects.iter().map(|object| format!("{} {}", object.kind.name(), object.name)).collect();
    assert_eq!(
        names,
        [
            "ServiceAccount demo-coordinator",
            "ServiceAccount demo-datanode",
            "ConfigMap demo-coordinator",
            "ConfigMap demo-datanode",
            "Service demo-coordinator",
            "Service demo-coordinators",
            "Service demo-datanodes",
            "NetworkPolicy demo-coordinator",
            "NetworkPolicy demo-datanode",
            "PodDisruptionBudget demo-datanode",
            "PersistentVolumeClaim demo-metadata",
            "Deployment demo-coordinator",
            "StatefulSet demo-datanode",
        ]
    );
    for object in &objects {
        assert_eq!(object.value["metadata"]["name"], object.name.as_str());
        assert_eq!(object.value["metadata"]["namespace"], "files");
        assert_eq!(object.value["kind"], object.kind.name());
        assert!(object.value["apiVersion"].is_string());
    }
}

#[test]
fn c32_operands_have_no_token() {
    for object in all() {
        if object.kind == Kind::ServiceAccount {
            assert_eq!(object.value["automountServiceAccountToken"], false);
        }
    }
    for workload in workloads(&all()) {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
    }
}

#[test]
fn c37_all_but_claims_and_the_join_secret_are_deleted_with_the_resource() {
    for object in all() {
        let owners = &object.value["metadata"]["ownerReferences"];
        if object.kind == Kind::Claim {
            assert_eq!(*owners, Value::Null);
            continue;
        }
        let owner = json!([{
            "apiVersion": "dfs.io/v1alpha1",
            "kind": "DfsCluster",
            "name": "demo",
            "uid": "u-1",
            "controller": true,
            "blockOwnerDeletion": true,
        }]);
        assert_eq!(*owners, owner, "{} {}", object.kind.name(), object.name);
    }
    let secret = join_secret(&cluster(MINIMAL), id(), "word");
    assert_eq!(secret.metadata.owner_references, None);
    assert_eq!(secret.metadata.name.as_deref(), Some("demo-join"));
    let data = secret.string_data.unwrap();
    assert_eq!(data["join-secret"], "word");
    assert_eq!(data["cluster-id"], id().to_string());
}

#[test]
fn c40_names_fit_for_the_longest_name_of_a_cluster() {
    let mut cluster = cluster(FULL);
    cluster.metadata.name = Some("n".repeat(dfs_crd::NAME_LEN_MAX));
    cluster.spec.datanodes.storage.volumes_per_node = 16;
    let objects = render(&cluster);
    let mut names: Vec<String> = objects.iter().map(|object| object.name.clone()).collect();
    names.push(join_secret(&cluster, id(), "word").metadata.name.unwrap());
    // A StatefulSet labels its pods with its name and a hash; its claims are named after
    // everything.
    let set = objects.iter().find(|object| object.kind == Kind::StatefulSet).unwrap();
    names.push(format!("{}-0123456789", set.name));
    names.push(format!("data-15-{}-499", set.name));
    for name in names {
        assert!(name.len() <= 63, "{name} has {}", name.len());
    }
}

#[test]
fn c41_labels_are_recommended_ones_and_selectors_minimal() {
    for object in all() {
        let labels = &object.value["metadata"]["labels"];
        for key in ["name", "instance", "component", "managed-by", "part-of"] {
            assert!(labels[format!("app.kubernetes.io/{key}")].is_string(), "{}", object.name);
        }
        // Objects that outlive versions have no version label.
        let has_version = labels["app.kubernetes.io/version"].is_string();
        assert_eq!(has_version, object.kind != Kind::Claim, "{}", object.name);
    }
    for workload in workloads(&all()) {
        let component = &workload["metadata"]["labels"]["app.kubernetes.io/component"];
        let selector = json!({
            "app.kubernetes.io/name": "dfs",
            "app.kubernetes.io/instance": "demo",
            "app.kubernetes.io/component": component,
        });
        assert_eq!(workload["spec"]["selector"]["matchLabels"], selector);
        let pod = &workload["spec"]["template"]["metadata"]["labels"];
        for (key, value) in selector.as_object().unwrap() {
            assert_eq!(pod[key], *value);
        }
    }
}

#[test]
fn c41_version_label_is_valid_for_any_image() {
    let mut cluster = cluster(MINIMAL);
    let mut version = |tag: &str, digest: Option<&str>| {
        cluster.spec.image.tag = tag.to_owned();
        cluster.spec.image.digest = digest.map(ToOwned::to_owned);
        let objects = render(&cluster);
        let set = find(&objects, Kind::StatefulSet, "demo-datanode");
        let label = &set["metadata"]["labels"]["app.kubernetes.io/version"];
        (label.as_str().unwrap().to_owned(), container(set)["image"].as_str().unwrap().to_owned())
    };
    let (label, image) = version("1.2.3-", None);
    assert_eq!((label.as_str(), image.as_str()), ("1.2.3", "ghcr.io/dfs-io/dfs:1.2.3-"));
    assert_eq!(version(&"1".repeat(128), None).0.len(), 63);
    let digest = format!("sha256:{}", "ab".repeat(32));
    let (label, image) = version("1.2.3", Some(&digest));
    assert_eq!(label, "abababababab");
    assert_eq!(image, format!("ghcr.io/dfs-io/dfs@{digest}"));
}

#[test]
fn c61_c62_pods_are_restricted() {
    let all = all();
    for workload in workloads(&all) {
        let pod = &workload["spec"]["template"]["spec"]["securityContext"];
        assert_eq!(pod["runAsNonRoot"], true);
        assert_eq!(pod["runAsUser"], 65_532);
        assert_eq!(pod["fsGroup"], 65_532);
        assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault");
        let own = &container(workload)["securityContext"];
        assert_eq!(own["allowPrivilegeEscalation"], false);
        assert_eq!(own["readOnlyRootFilesystem"], true);
        assert_eq!(own["runAsNonRoot"], true);
        assert_eq!(own["capabilities"], json!({ "drop": ["ALL"] }));
        // Only these kinds of volumes are allowed in a restricted namespace.
        let volumes = workload["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        for volume in volumes {
            let kinds = ["configMap", "secret", "persistentVolumeClaim"];
            assert!(kinds.iter().any(|kind| volume[kind].is_object()), "{volume}");
        }
    }
}

#[test]
fn c63_requests_and_memory_limit_are_set_but_no_cpu_limit() {
    let minimal = render(&cluster(MINIMAL));
    for workload in workloads(&minimal) {
        assert_eq!(
            container(workload)["resources"],
            json!({ "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "512Mi" } })
        );
    }
    let full = render(&cluster(FULL));
    for workload in workloads(&full) {
        assert!(container(workload)["resources"]["limits"]["cpu"].is_string(), "if requested");
    }
}

#[test]
fn c64_liveness_depends_only_on_the_process() {
    let all = all();
    for workload in workloads(&all) {
        let own = container(workload);
        let path = |probe: &str| own[probe]["httpGet"]["path"].clone();
        assert_eq!(path("startupProbe"), "/healthz");
        assert_eq!(path("livenessProbe"), "/healthz");
        assert_eq!(path("readinessProbe"), "/readyz");
        let http = own["ports"].as_array().unwrap().iter().find(|port| port["name"] == "http");
        let port = http.unwrap()["containerPort"].as_i64().unwrap();
        assert!(arguments(workload).contains(&format!("--http-listen=0.0.0.0:{port}").as_str()));
    }
}

#[test]
fn stateful_set_never_acts_by_itself() {
    let objects = render(&cluster(MINIMAL));
    let spec = &find(&objects, Kind::StatefulSet, "demo-datanode")["spec"];
    assert_eq!(spec["podManagementPolicy"], "Parallel");
    assert_eq!(spec["updateStrategy"], json!({ "type": "OnDelete" }));
    assert_eq!(spec["minReadySeconds"], 10);
    assert_eq!(spec["revisionHistoryLimit"], 5);
    assert_eq!(spec["serviceName"], "demo-datanodes");
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"],
        json!({ "whenDeleted": "Retain", "whenScaled": "Retain" })
    );
    assert_eq!(spec["template"]["spec"]["terminationGracePeriodSeconds"], 120);
    let claim = &spec["volumeClaimTemplates"][0];
    assert_eq!(claim["metadata"]["name"], "data");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "10Gi");
    assert_eq!(claim["spec"].get("storageClassName"), None, "the default class");
}

#[test]
fn datanode_gets_its_identity_and_location() {
    let objects = render(&cluster(MINIMAL));
    let set = find(&objects, Kind::StatefulSet, "demo-datanode");
    assert_eq!(
        arguments(set),
        [
            "datanode",
            "--data-dir=/data/0/dfs",
            "--config=/etc/dfs/datanode.yaml",
            "--join-secret-file=/etc/dfs-join/join-secret",
            "--listen=0.0.0.0:7080",
            "--http-listen=0.0.0.0:7081",
            "--advertise=$(POD_NAME).demo-datanodes.files.svc:7080",
            "--host=$(NODE_NAME)",
            "--coordinator=http://demo-coordinators.files.svc:7070",
            "--insecure",
        ]
    );
    let full = render(&cluster(FULL));
    let set = find(&full, Kind::StatefulSet, "demo-datanode");
    let folders = arguments(set).iter().filter(|a| a.starts_with("--data-dir")).count();
    let mounts = container(set)["volumeMounts"].as_array().unwrap();
    let claims = set["spec"]["volumeClaimTemplates"].as_array().unwrap();
    assert_eq!((folders, claims.len()), (2, 2));
    for claim in claims {
        assert!(mounts.iter().any(|mount| mount["name"] == claim["metadata"]["name"]));
    }
}

#[test]
fn variables_in_arguments_are_set() {
    let all = all();
    for workload in workloads(&all) {
        let variables = container(workload)["env"].as_array().unwrap();
        for argument in arguments(workload) {
            let mut rest = argument;
            while let Some((_, after)) = rest.split_once("$(") {
                let (name, after) = after.split_once(')').unwrap();
                assert!(variables.iter().any(|variable| variable["name"] == name), "{argument}");
                rest = after;
            }
        }
    }
}

#[test]
fn zone_is_the_label_that_spreads_pods() {
    for (key, field) in [
        ("kubernetes.io/hostname", "spec.nodeName"),
        ("topology.kubernetes.io/zone", "metadata.labels['topology.kubernetes.io/zone']"),
        ("topology.kubernetes.io/region", "metadata.labels['topology.kubernetes.io/region']"),
    ] {
        let mut cluster = cluster(MINIMAL);
        cluster.spec.failure_domain.topology_key = serde_json::from_value(json!(key)).unwrap();
        let objects = render(&cluster);
        let set = find(&objects, Kind::StatefulSet, "demo-datanode");
        let variables = container(set)["env"].as_array().unwrap();
        let zone = variables.iter().find(|variable| variable["name"] == "DFS_ZONE").unwrap();
        assert_eq!(zone["valueFrom"]["fieldRef"]["fieldPath"], field);
        let spread = &set["spec"]["template"]["spec"]["topologySpreadConstraints"];
        assert_eq!(spread[0]["topologyKey"], key);
        assert_eq!(spread[0]["whenUnsatisfiable"], "ScheduleAnyway");
    }
}

#[test]
fn policy_required_separates_pods() {
    let mut cluster = cluster(MINIMAL);
    cluster.spec.failure_domain.policy = dfs_crd::SpreadPolicy::Required;
    let objects = render(&cluster);
    for workload in workloads(&objects) {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["topologySpreadConstraints"][0]["whenUnsatisfiable"], "DoNotSchedule");
        let apart = "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0";
        assert_eq!(pod.pointer(apart).unwrap()["topologyKey"], "kubernetes.io/hostname");
    }
}

#[test]
fn metadata_volume_belongs_to_one_coordinator() {
    let embedded = render(&cluster(MINIMAL));
    let deployment = find(&embedded, Kind::Deployment, "demo-coordinator");
    assert_eq!(deployment["spec"]["strategy"], json!({ "type": "Recreate" }));
    assert!(arguments(deployment).contains(&"--metadata=redb:///metadata/dfs"));
    let etcd = render(&cluster(FULL));
    let deployment = find(&etcd, Kind::Deployment, "demo-coordinator");
    assert_eq!(deployment["spec"]["strategy"]["type"], "RollingUpdate");
    assert!(arguments(deployment).contains(
        &"--metadata=etcds://etcd-0.etcd:2379,etcd-1.etcd:2390/\
          dfs-0123456789abcdef0123456789abcdef?ca=/etc/dfs-etcd/ca.crt&\
          cert=/etc/dfs-etcd/tls.crt&key=/etc/dfs-etcd/tls.key"
    ));
    assert!(etcd.iter().all(|object| object.kind != Kind::Claim));
}

#[test]
fn headless_services_include_unready_pods() {
    let objects = render(&cluster(MINIMAL));
    for name in ["demo-coordinators", "demo-datanodes"] {
        let spec = &find(&objects, Kind::Service, name)["spec"];
        assert_eq!(spec["clusterIP"], "None");
        assert_eq!(spec["publishNotReadyAddresses"], true);
    }
    let clients = &find(&objects, Kind::Service, "demo-coordinator")["spec"];
    assert_eq!(clients.get("publishNotReadyAddresses"), None);
    assert_eq!(clients["ports"].as_array().unwrap().len(), 1);
    assert_eq!(clients["ports"][0]["port"], 7070);
}

#[test]
fn budget_allows_one_datanode_when_the_data_is_safe() {
    let minimal = cluster(MINIMAL);
    for (may_evict, max) in [(true, 1), (false, 0)] {
        let objects = objects(&Inputs { may_evict, ..inputs(&minimal) });
        let spec = &find(&objects, Kind::Budget, "demo-datanode")["spec"];
        assert_eq!(spec["maxUnavailable"], max);
        assert_eq!(spec["unhealthyPodEvictionPolicy"], "AlwaysAllow");
        assert!(objects.iter().all(|o| o.kind != Kind::Budget || o.name != "demo-coordinator"));
    }
    let full = render(&cluster(FULL));
    assert_eq!(find(&full, Kind::Budget, "demo-coordinator")["spec"]["maxUnavailable"], 1);
}

#[test]
fn rendering_is_deterministic() {
    for yaml in [MINIMAL, FULL] {
        let cluster = cluster(yaml);
        let text = |objects: Vec<Object>| {
            objects.iter().map(|object| object.value.to_string()).collect::<String>()
        };
        assert_eq!(text(render(&cluster)), text(render(&cluster)));
    }
}

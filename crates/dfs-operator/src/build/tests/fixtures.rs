//! Resources, and rendered objects.

use dfs_crd::DfsCluster;
use dfs_types::ClusterId;
use serde_json::Value;

use crate::build::{Inputs, objects};
use crate::kind::{Kind, Object};

/// The minimal manifest.
pub(super) const MINIMAL: &str = "
apiVersion: dfs.io/v1alpha1
kind: DfsCluster
metadata: {name: demo, namespace: files, uid: u-1}
spec:
  datanodes:
    storage: {size: 10Gi}
";

/// Every field set, with the engine Etcd.
pub(super) const FULL: &str = "
apiVersion: dfs.io/v1alpha1
kind: DfsCluster
metadata: {name: demo, namespace: files, uid: u-1, annotations: {dfs.io/restarted-at: now}}
spec:
  image:
    repository: registry.example.org/dfs
    tag: 1.2.3
    digest: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    pullPolicy: Always
    pullSecrets: [registry]
  replicationFactor: 2
  minWriteReplicas: 1
  failureDomain: {topologyKey: topology.kubernetes.io/zone, policy: Required}
  coordinator:
    replicas: 3
    relayStreams: 8
    metadata:
      engine: Etcd
      etcd:
        endpoints: ['etcd-0.etcd:2379', 'etcd-1.etcd:2390']
        tlsSecretName: etcd-client
    resources:
      requests: {cpu: 200m, memory: 256Mi}
      limits: {cpu: '2', memory: 1Gi}
    service:
      type: LoadBalancer
      annotations: {example.org/pool: internal}
    podTemplate: &overlay
      labels: {team: storage}
      annotations: {example.org/note: hello}
      nodeSelector: {disk: fast}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions:
              - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      tolerations:
      - {key: storage, operator: Exists, effect: NoSchedule}
      topologySpreadConstraints:
      - {maxSkew: 2, topologyKey: rack, whenUnsatisfiable: ScheduleAnyway}
      priorityClassName: high
      terminationGracePeriodSeconds: 60
      serviceAccountName: own-account
      extraEnv:
      - {name: RUST_LOG, value: debug}
  datanodes:
    replicas: 5
    storage:
      size: 100Gi
      storageClassName: fast
      volumesPerNode: 2
      reservedPercent: 7
    resources:
      requests: {cpu: 300m, memory: 192Mi}
      limits: {cpu: '4', memory: 2Gi}
    podTemplate: *overlay
  security:
    networkPolicy:
      enabled: true
      clientSelectors:
      - podSelector: {matchLabels: {dfs-client: 'true'}}
  monitoring:
    serviceMonitor: {enabled: true, intervalSeconds: 15, labels: {release: prometheus}}
  maintenance:
    update: {strategy: OnDelete, requireFullyReplicated: false, nodeTimeoutSeconds: 600}
  stopped: false
  deletionPolicy: Delete
  deletionConfirmation: demo
";

pub(super) fn cluster(yaml: &str) -> DfsCluster {
    serde_saphyr::from_str(yaml).unwrap()
}

/// Every field set, with the engine Embedded.
pub(super) fn full_embedded() -> DfsCluster {
    let mut cluster = cluster(FULL);
    let coordinator = &mut cluster.spec.coordinator;
    coordinator.replicas = 1;
    coordinator.metadata = serde_json::from_value(serde_json::json!({
        "embedded": { "storage": { "size": "20Gi", "storageClassName": "fast" } },
    }))
    .unwrap();
    cluster
}

pub(super) fn id() -> ClusterId {
    "0123456789abcdef0123456789abcdef".parse().unwrap()
}

/// Returns the inputs for a healthy cluster.
pub(super) fn inputs(cluster: &DfsCluster) -> Inputs<'_> {
    let spec = &cluster.spec;
    Inputs {
        cluster,
        cluster_id: id(),
        operator_namespace: Some("dfs-system"),
        coordinators: if spec.stopped { 0 } else { spec.coordinator.replicas },
        datanodes: if spec.stopped { 0 } else { spec.datanodes.replicas },
        may_evict: true,
    }
}

pub(super) fn render(cluster: &DfsCluster) -> Vec<Object> {
    objects(&inputs(cluster))
}

/// Returns the object of this kind and name.
pub(super) fn find<'a>(objects: &'a [Object], kind: Kind, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object.kind == kind && object.name == name);
    &found.unwrap_or_else(|| panic!("no {} {name}", kind.name())).value
}

/// Returns the Deployment and the StatefulSet.
pub(super) fn workloads(objects: &[Object]) -> Vec<&Value> {
    let is_one = |kind| matches!(kind, Kind::Deployment | Kind::StatefulSet);
    objects.iter().filter(|object| is_one(object.kind)).map(|object| &object.value).collect()
}

/// Returns the only container of a workload.
pub(super) fn container(workload: &Value) -> &Value {
    let containers = workload["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

pub(super) fn arguments(workload: &Value) -> Vec<&str> {
    let arguments = container(workload)["args"].as_array().unwrap();
    arguments.iter().map(|argument| argument.as_str().unwrap()).collect()
}

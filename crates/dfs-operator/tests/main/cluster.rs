//! The operator's environment: controllers that create pods, and coordinators.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dfs_client::{
    ClusterStatus, DiskStatus, Maintenance, NodeStatus, Replication, ReplicationStatus,
};
use dfs_operator::coordinator::{Addresses, CallError, Coordinator, Snapshot};
use dfs_types::{ClusterId, DiskId, NodeId, NodeState};
use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// The resource of the tests.
pub(crate) fn dfs_cluster(name: &str) -> Value {
    json!({
        "apiVersion": "dfs.io/v1alpha1",
        "kind": "DfsCluster",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"datanodes": {"storage": {"size": "1Gi"}}},
    })
}

/// Fake coordinators of one cluster.
#[derive(Default)]
pub(crate) struct FakeCoordinator {
    made: Mutex<Option<ClusterId>>,
    admitted: Mutex<BTreeSet<u128>>,
    pub(crate) pictures: AtomicU32,
    api: ApiServer,
    /// True to panic when asked for the status of this cluster.
    pub(crate) panics: bool,
}

impl FakeCoordinator {
    pub(crate) fn new(api: &ApiServer) -> Arc<Self> {
        Arc::new(Self { api: api.clone(), ..Self::default() })
    }

    pub(crate) fn panicking(api: &ApiServer) -> Arc<Self> {
        Arc::new(Self { api: api.clone(), panics: true, ..Self::default() })
    }
}

#[async_trait]
impl Coordinator for FakeCoordinator {
    async fn snapshot(&self, at: &Addresses) -> Snapshot {
        assert!(!self.panics || at.is_empty(), "a bug");
        self.pictures.fetch_add(1, Ordering::Relaxed);
        if at.is_empty() {
            return Snapshot::Unreachable("no address".to_owned());
        }
        let Some(id) = *self.made.lock().unwrap() else { return Snapshot::Uninitialised };
        let admitted = self.admitted.lock().unwrap();
        let nodes = self.api.list("pods").into_iter().enumerate().filter_map(|(i, pod)| {
            let name = pod["metadata"]["name"].as_str()?;
            let (cluster, _) = name.split_once("-datanode-")?;
            let id = i as u128 + 1;
            let state = if admitted.contains(&id) { NodeState::Active } else { NodeState::Joining };
            Some(datanode(NodeId(id), format!("{name}.{cluster}-datanodes.ns.svc:7080"), state))
        });
        Snapshot::Known(Box::new(cluster_status(id, nodes.collect())))
    }

    async fn init(&self, _: &Addresses, id: ClusterId, _: Replication) -> Result<bool, CallError> {
        Ok(self.made.lock().unwrap().replace(id).is_none())
    }

    async fn set_replication(
        &self,
        _: &Addresses,
        _: ClusterId,
        _: Replication,
    ) -> Result<(), CallError> {
        Ok(())
    }

    async fn admit(&self, _: &Addresses, _: ClusterId, node: NodeId) -> Result<(), CallError> {
        self.admitted.lock().unwrap().insert(node.0);
        Ok(())
    }

    async fn begin_maintenance(
        &self,
        _: &Addresses,
        _: ClusterId,
        _: NodeId,
        _: Duration,
    ) -> Result<Maintenance, CallError> {
        Ok(Maintenance::Granted)
    }

    async fn end_maintenance(
        &self,
        _: &Addresses,
        _: ClusterId,
        _: NodeId,
    ) -> Result<(), CallError> {
        Ok(())
    }
}

/// Returns a datanode with one chunk on its disk.
pub(crate) fn datanode(id: NodeId, address: String, state: NodeState) -> NodeStatus {
    let mut disk = DiskStatus::new(DiskId(id.0), 1_000);
    (disk.free, disk.chunks) = (990, 1);
    let mut node = NodeStatus::new(id, address, state);
    node.disks = vec![disk];
    "0.1.0".clone_into(&mut node.version);
    node
}

/// Returns the status of a cluster with healthy data.
pub(crate) fn cluster_status(id: ClusterId, nodes: Vec<NodeStatus>) -> ClusterStatus {
    let mut status = ClusterStatus::new(id);
    status.nodes = nodes;
    status.replication = Some(ReplicationStatus::default());
    "0.1.0".clone_into(&mut status.version);
    "10.0.0.1:7070".clone_into(&mut status.worker_lease_holder);
    status
}

/// Runs the workload controllers: every second they create missing pods, all ready.
pub(crate) async fn controllers(api: ApiServer) {
    loop {
        for plural in ["deployments", "statefulsets"] {
            for workload in api.list(plural) {
                make_pods(&api, plural, &workload);
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn make_pods(api: &ApiServer, plural: &str, workload: &Value) {
    let name = workload["metadata"]["name"].as_str().unwrap();
    let replicas = workload["spec"]["replicas"].as_i64().unwrap();
    for i in 0..replicas {
        let pod = format!("{name}-{i}");
        if api.get("pods", &pod).is_none() {
            let mut object = workload["spec"]["template"].clone();
            object["metadata"]["name"] = pod.into();
            object["metadata"]["namespace"] = "ns".into();
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": name,
                "uid": workload["metadata"]["uid"], "controller": true,
            }]);
            object["status"] = json!({
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}],
            });
            api.put("pods", object);
        }
    }
    let mut workload = workload.clone();
    workload["status"] = json!({
        "observedGeneration": workload["metadata"]["generation"],
        "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas,
        "readyReplicas": replicas,
    });
    api.put(plural, workload);
}

/// Waits, for ten minutes of the test's clock, until this holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("timed out: {what}");
}

/// Returns status and reason of a condition.
pub(crate) fn condition(api: &ApiServer, cluster: &str, kind: &str) -> Option<(String, String)> {
    let cluster = api.get("dfsclusters", cluster)?;
    let conditions = cluster["status"]["conditions"].as_array()?.clone();
    let there = conditions.iter().find(|there| there["type"] == kind)?;
    let text = |field: &str| there[field].as_str().map(str::to_owned);
    Some((text("status")?, text("reason")?))
}

/// Returns true if a cluster is ready.
pub(crate) fn is_ready(api: &ApiServer, cluster: &str) -> bool {
    condition(api, cluster, "Ready").is_some_and(|(status, _)| status == "True")
}

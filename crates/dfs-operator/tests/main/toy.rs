//! A toy Kubernetes driven step by step: controllers, garbage collection, coordinators with nodes.
//! It runs the real operator, up to a chosen change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dfs_client::{Maintenance, Replication, StopSafety};
use dfs_operator::controller::{Operator, Pod};
use dfs_operator::coordinator::{Addresses, CallError, Coordinator, Snapshot};
use dfs_runtime::Metrics;
use dfs_types::{ClusterId, NodeId, NodeState};
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::cluster::{cluster_status, condition, datanode, dfs_cluster};

const REVISION: &str = "dfs.io/revision";
/// Time per round.
const ROUND: Duration = Duration::from_secs(10);
/// Rounds within which it must converge.
const ROUNDS_MAX: usize = 150;

/// The toy, with one cluster `data`.
pub(crate) struct Toy {
    pub(crate) api: ApiServer,
    coordinators: Arc<Coordinators>,
    /// Revisions whose datanodes do not become ready.
    pub(crate) bad: BTreeSet<String>,
    /// True if at most one datanode may ever be down.
    pub(crate) one_at_a_time: bool,
}

/// The coordinators of the toy.
struct Coordinators {
    api: ApiServer,
    state: Mutex<Registry>,
}

#[derive(Clone)]
struct Registry {
    made: Option<ClusterId>,
    replication: Replication,
    nodes: BTreeMap<String, (NodeState, Option<Duration>)>,
}

/// Returns the durable replicas that a write needs.
fn min_write(replication: Replication) -> u32 {
    replication.min_write.unwrap_or(replication.factor / 2 + 1)
}

impl Toy {
    pub(crate) fn new(spec: Value) -> Self {
        let api = ApiServer::default();
        let mut cluster = dfs_cluster("data");
        merge(&mut cluster["spec"], spec);
        api.put("dfsclusters", cluster);
        let registry =
            Registry { made: None, replication: Replication::new(3), nodes: BTreeMap::new() };
        Self::over(api, registry, BTreeSet::new())
    }

    fn over(api: ApiServer, registry: Registry, bad: BTreeSet<String>) -> Self {
        let coordinators = Coordinators { api: api.clone(), state: Mutex::new(registry) };
        Self { api, coordinators: Arc::new(coordinators), bad, one_at_a_time: false }
    }

    /// Returns another toy in the same state.
    pub(crate) fn fork(&self) -> Self {
        let registry = self.coordinators.state.lock().unwrap().clone();
        let fork = Self::over(self.api.fork(), registry, self.bad.clone());
        Self { one_at_a_time: self.one_at_a_time, ..fork }
    }

    /// Edits the resource like a user.
    pub(crate) fn edit(&self, patch: Value) {
        let mut cluster = self.api.get("dfsclusters", "data").unwrap();
        merge(&mut cluster, patch);
        self.api.put("dfsclusters", cluster);
    }

    pub(crate) fn replication(&self) -> (u32, u32) {
        let replication = self.coordinators.state.lock().unwrap().replication;
        (replication.factor, min_write(replication))
    }

    /// Returns a newly started operator.
    fn operator(&self) -> Operator {
        let pod = Pod { name: "op-0".to_owned(), namespace: "op".to_owned(), is_in_cluster: true };
        let coordinators = Arc::<Coordinators>::clone(&self.coordinators);
        let metrics = Metrics::new("operator");
        Operator::new(self.api.client(), coordinators, &metrics, Vec::new(), &pod)
    }

    /// Lets time pass and the operator reconcile until nothing moves. An operator that is cut off
    /// is succeeded by another. Returns the number of changes, and whether one was cut off.
    pub(crate) async fn settle(&self, cut_after: Option<usize>) -> (usize, bool) {
        self.api.cut_after(cut_after);
        let (mut operator, mut quiet) = (self.operator(), 0);
        let (mut changes, mut was_cut) = (0, false);
        for _ in 0..ROUNDS_MAX {
            let before = (self.moving(), self.api.changes());
            self.pass(quiet > 0);
            if self.api.get("dfsclusters", "data").is_some() {
                let looked = operator.reconcile_once("ns", "data");
                tokio::pin!(looked);
                tokio::select! {
                    biased;
                    _ = &mut looked => {}
                    () = self.cut() => {}
                }
            }
            if self.api.is_cut() {
                changes += self.api.changes();
                self.api.cut_after(None);
                was_cut = true;
                operator = self.operator();
                continue;
            }
            let is_quiet = before.0.1 == 0 && before == (self.moving(), self.api.changes());
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet == 3 {
                return (changes + self.api.changes(), was_cut);
            }
        }
        panic!("no end: {:#}", self.api.get("dfsclusters", "data").unwrap_or_default());
    }

    /// Completes when the operator has been cut off.
    async fn cut(&self) {
        while !self.api.is_cut() {
            tokio::task::yield_now().await;
        }
    }

    /// Returns what must be stable in the final state.
    fn moving(&self) -> (Vec<Option<String>>, usize) {
        let version = |object: &Value| object["metadata"]["uid"].as_str().map(str::to_owned);
        let uids = self.api.list("pods").iter().map(version).collect();
        let state = self.coordinators.state.lock().unwrap();
        (uids, state.nodes.values().filter(|(_, left)| left.is_some()).count())
    }

    fn pass(&self, is_quiet: bool) {
        self.collect();
        for plural in ["deployments", "statefulsets"] {
            for workload in self.api.list(plural) {
                self.run(plural, workload);
            }
        }
        let down = self.api.list("pods").into_iter().filter(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap();
            name.contains("-datanode-") && pod["status"]["phase"] != "Running"
        });
        assert!(!self.one_at_a_time || down.count() <= 1, "two datanodes are down at once");
        // Time passes faster while nothing happens.
        self.coordinators.pass(if is_quiet { 30 * ROUND } else { ROUND });
    }

    /// Removes objects whose owner is gone.
    fn collect(&self) {
        loop {
            let all = self.api.everything();
            let uids: BTreeSet<&str> =
                all.iter().filter_map(|(_, object)| object["metadata"]["uid"].as_str()).collect();
            let is_orphan = |object: &Value| {
                let owners = object["metadata"]["ownerReferences"].as_array();
                owners.into_iter().flatten().any(|o| !uids.contains(o["uid"].as_str().unwrap()))
            };
            let orphans: Vec<_> = all.iter().filter(|(_, object)| is_orphan(object)).collect();
            if orphans.is_empty() {
                return;
            }
            for (plural, object) in orphans {
                self.api.remove(plural, object["metadata"]["name"].as_str().unwrap());
            }
        }
    }

    fn run(&self, plural: &str, mut workload: Value) {
        let name = workload["metadata"]["name"].as_str().unwrap().to_owned();
        let uid = workload["metadata"]["uid"].clone();
        let replicas = workload["spec"]["replicas"].as_i64().unwrap();
        let template = workload["spec"]["template"].clone();
        let revision = &template["metadata"]["annotations"][REVISION];
        let wanted: Vec<String> = (0..replicas).map(|i| format!("{name}-{i}")).collect();
        for pod in self.api.list("pods") {
            let pod_name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            let is_ours = pod["metadata"]["ownerReferences"][0]["uid"] == uid;
            let is_new = pod["metadata"]["annotations"][REVISION] == *revision;
            // A Deployment replaces its pods; a StatefulSet waits for their deletion.
            let stays = wanted.contains(&pod_name) && (is_new || plural == "statefulsets");
            if is_ours && !stays {
                self.api.remove("pods", &pod_name);
            }
        }
        let mut ready = 0;
        for pod_name in &wanted {
            let Some(mut pod) = self.api.get("pods", pod_name) else {
                self.start(plural, pod_name, &workload);
                continue;
            };
            let revision = pod["metadata"]["annotations"][REVISION].as_str().unwrap_or_default();
            let is_ready = !self.bad.contains(revision);
            ready += i64::from(is_ready);
            pod["status"] = json!({
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}],
            });
            self.api.put("pods", pod);
        }
        workload["status"] = json!({
            "observedGeneration": workload["metadata"]["generation"], "replicas": replicas,
            "updatedReplicas": replicas, "availableReplicas": ready, "readyReplicas": ready,
        });
        self.api.put(plural, workload);
    }

    fn start(&self, plural: &str, name: &str, workload: &Value) {
        let mut pod = workload["spec"]["template"].clone();
        let kind = if plural == "deployments" { "Deployment" } else { "StatefulSet" };
        pod["metadata"]["name"] = name.into();
        pod["metadata"]["namespace"] = "ns".into();
        pod["metadata"]["creationTimestamp"] =
            k8s_openapi::jiff::Timestamp::now().to_string().into();
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": kind, "name": workload["metadata"]["name"],
            "uid": workload["metadata"]["uid"], "controller": true,
        }]);
        pod["status"] = json!({"phase": "Pending"});
        for template in workload["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
            let claim = format!("{}-{name}", template["metadata"]["name"].as_str().unwrap());
            if self.api.get("persistentvolumeclaims", &claim).is_none() {
                let mut object = template.clone();
                object["metadata"]["name"] = claim.into();
                object["metadata"]["namespace"] = "ns".into();
                self.api.put("persistentvolumeclaims", object);
            }
        }
        self.api.put("pods", pod);
    }

    /// Returns all objects, without what differs between runs: uids, versions, times, random ids,
    /// and fingerprints of these.
    pub(crate) fn still(&self) -> BTreeMap<String, Value> {
        let id = self.coordinators.state.lock().unwrap().made.map(|id| id.to_string());
        let mut all = BTreeMap::new();
        for (plural, mut object) in self.api.everything() {
            if plural == "events" {
                continue;
            }
            let name = format!("{plural} {}", object["metadata"]["name"].as_str().unwrap());
            if plural == "secrets" {
                object["data"]["join-secret"].take();
                object["data"]["cluster-id"].take();
            }
            strip(&mut object);
            let mut text = object.to_string();
            if let Some(id) = &id {
                text = text.replace(id, "ID");
            }
            all.insert(name, serde_json::from_str(&text).unwrap());
        }
        let state = self.coordinators.state.lock().unwrap();
        let nodes: Vec<String> = state.nodes.iter().map(|node| format!("{node:?}")).collect();
        all.insert("metadata".to_owned(), json!([format!("{:?}", state.replication), nodes]));
        all
    }

    /// Returns the status of a condition.
    pub(crate) fn holds(&self, kind: &str) -> bool {
        condition(&self.api, "data", kind).is_some_and(|(status, _)| status == "True")
    }
}

fn strip(value: &mut Value) {
    const ONCE: [&str; 7] = [
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "lastTransitionTime",
        "dfs.io/applied",
        "observedGeneration",
    ];
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !ONCE.contains(&key.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn merge(there: &mut Value, patch: Value) {
    match (there, patch) {
        (Value::Object(there), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(there.entry(key).or_insert(Value::Null), value);
            }
        }
        (there, patch) => *there = patch,
    }
}

impl Coordinators {
    /// Lets datanodes join, fall silent and come back; ends maintenance.
    fn pass(&self, time: Duration) {
        let mut state = self.state.lock().unwrap();
        if state.made.is_none() {
            return;
        }
        let pods = self.api.list("pods");
        let is_up = |name: &str| {
            pods.iter().any(|pod| {
                pod["metadata"]["name"] == name
                    && pod["status"]["conditions"][0]["status"] == "True"
            })
        };
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            if name.contains("-datanode-") && is_up(name) {
                state.nodes.entry(name.to_owned()).or_insert((NodeState::Joining, None));
            }
        }
        for (name, (node, left)) in &mut state.nodes {
            *left = left.and_then(|left| left.checked_sub(time));
            *node = match (*node, left.is_some(), is_up(name)) {
                (NodeState::Joining, ..) => NodeState::Joining,
                (_, true, _) => NodeState::Maintenance,
                (_, false, true) => NodeState::Active,
                (_, false, false) => NodeState::Suspect,
            };
        }
    }

    fn name(node: NodeId) -> String {
        format!("data-datanode-{}", node.0 - 1)
    }
}

#[async_trait]
impl Coordinator for Coordinators {
    async fn snapshot(&self, at: &Addresses) -> Snapshot {
        if at.is_empty() {
            return Snapshot::Unreachable("no address".to_owned());
        }
        let state = self.state.lock().unwrap();
        let Some(id) = state.made else { return Snapshot::Uninitialised };
        let nodes = state.nodes.iter().map(|(name, (state, left))| {
            let (_, ordinal) = name.rsplit_once('-').unwrap();
            let id = NodeId(ordinal.parse::<u128>().unwrap() + 1);
            let mut node = datanode(id, format!("{name}.data-datanodes.ns.svc:7080"), *state);
            node.maintenance_left = *left;
            node
        });
        let mut status = cluster_status(id, nodes.collect());
        status.replication_factor = state.replication.factor;
        status.min_write_replicas = min_write(state.replication);
        Snapshot::Known(Box::new(status))
    }

    async fn init(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication: Replication,
    ) -> Result<bool, CallError> {
        let is_new = {
            let mut state = self.state.lock().unwrap();
            assert!(state.made.is_none_or(|made| made == id), "a second cluster is created");
            state.made.replace(id).is_none()
        };
        self.set_replication(at, id, replication).await?;
        Ok(is_new)
    }

    async fn set_replication(
        &self,
        _: &Addresses,
        _: ClusterId,
        replication: Replication,
    ) -> Result<(), CallError> {
        self.state.lock().unwrap().replication = replication;
        self.api.changed().await;
        Ok(())
    }

    async fn admit(&self, _: &Addresses, _: ClusterId, node: NodeId) -> Result<(), CallError> {
        let name = Self::name(node);
        self.state.lock().unwrap().nodes.insert(name, (NodeState::Active, None));
        self.api.changed().await;
        Ok(())
    }

    async fn begin_maintenance(
        &self,
        _: &Addresses,
        _: ClusterId,
        node: NodeId,
        ttl: Duration,
    ) -> Result<Maintenance, CallError> {
        let name = Self::name(node);
        let answer = {
            let mut state = self.state.lock().unwrap();
            let others = state.nodes.iter().filter(|(other, _)| **other != name);
            let is_safe = others.map(|(_, (state, _))| *state).all(|s| s == NodeState::Active);
            if is_safe {
                state.nodes.insert(name, (NodeState::Maintenance, Some(ttl)));
                Maintenance::Granted
            } else {
                Maintenance::Refused(StopSafety::refused("chunks would be out of reach"))
            }
        };
        self.api.changed().await;
        Ok(answer)
    }

    async fn end_maintenance(
        &self,
        _: &Addresses,
        _: ClusterId,
        node: NodeId,
    ) -> Result<(), CallError> {
        let name = Self::name(node);
        self.state.lock().unwrap().nodes.insert(name, (NodeState::Active, None));
        self.api.changed().await;
        Ok(())
    }
}

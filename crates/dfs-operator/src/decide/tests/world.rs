//! A toy Kubernetes with one cluster: objects, the controllers that create pods for them, and
//! coordinators. It checks the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_client::{DiskStatus, NodeStatus, ReplicationStatus};
use dfs_crd::{ClusterStatus, DfsCluster, FINALIZER, PAUSED};
use dfs_types::{ClusterId, DiskId, NodeId, NodeState};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::super::{Action, Decision, decide};
use super::rules;
use crate::build::{Names, REVISION};
use crate::coordinator::Snapshot;
use crate::definition::Definition;
use crate::kind::{Kind, Target};
use crate::observed::{Child, Join, Observed, Owner, is_ready, pod_of};
use crate::status::{Outcome, status};

pub(crate) const ID: ClusterId = ClusterId(0xc1);
/// Seconds per round.
const ROUND: i64 = 10;

/// The toy.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) cluster: Option<DfsCluster>,
    pub(crate) join: Option<Join>,
    pub(crate) objects: BTreeMap<(Kind, String), (String, Value)>,
    pub(crate) claims: Vec<PersistentVolumeClaim>,
    pub(crate) pods: Vec<Pod>,
    /// Id of the cluster in the metadata.
    pub(crate) made: Option<ClusterId>,
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) replication: (i32, i32),
    pub(crate) under_replicated: u64,
    pub(crate) missing: u64,
    /// True once coordinators have counted replicas.
    pub(crate) is_data_known: bool,
    pub(crate) definition: Definition,
    pub(crate) is_reachable: bool,
    /// True if stopping a node is refused.
    pub(crate) is_unsafe: bool,
    /// Revisions whose pods do not become ready.
    pub(crate) bad: BTreeSet<String>,
    /// Pods whose machine is dead.
    pub(crate) dead: BTreeSet<String>,
    pub(crate) now: Timestamp,
    /// All actions carried out.
    pub(crate) done: Vec<Action>,
    uids: u32,
}

pub(crate) fn cluster(spec: Value) -> DfsCluster {
    let mut cluster: DfsCluster = serde_json::from_value(json!({
        "apiVersion": "dfs.io/v1alpha1",
        "kind": "DfsCluster",
        "metadata": {
            "name": "data", "namespace": "ns", "uid": "cluster-uid", "generation": 1,
            "resourceVersion": "1",
        },
        "spec": {"datanodes": {"storage": {"size": "1Gi"}}},
    }))
    .unwrap();
    edit(&mut cluster, spec);
    cluster.metadata.generation = Some(1);
    cluster
}

/// Merges `spec` into that of the cluster.
pub(crate) fn edit(cluster: &mut DfsCluster, spec: Value) {
    let mut value = serde_json::to_value(&*cluster).unwrap();
    merge(&mut value["spec"], spec);
    let generation = cluster.metadata.generation.unwrap_or(0);
    *cluster = serde_json::from_value(value).unwrap();
    cluster.metadata.generation = Some(generation + 1);
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

impl World {
    pub(crate) fn new(spec: Value) -> Self {
        Self {
            cluster: Some(cluster(spec)),
            join: None,
            objects: BTreeMap::new(),
            claims: Vec::new(),
            pods: Vec::new(),
            made: None,
            nodes: Vec::new(),
            replication: (0, 0),
            under_replicated: 0,
            missing: 0,
            is_data_known: true,
            definition: Definition::Current,
            is_reachable: true,
            is_unsafe: false,
            bad: BTreeSet::new(),
            dead: BTreeSet::new(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            done: Vec::new(),
            uids: 0,
        }
    }

    /// Returns a world with a running cluster.
    pub(crate) fn running(spec: Value) -> Self {
        let mut world = Self::new(spec);
        world.settle();
        world.done.clear();
        world
    }

    pub(crate) fn cluster(&mut self) -> &mut DfsCluster {
        self.cluster.as_mut().unwrap()
    }

    pub(crate) fn edit(&mut self, spec: Value) {
        edit(self.cluster(), spec);
    }

    pub(crate) fn annotate(&mut self, key: &str, value: &str) {
        self.cluster().annotations_mut().insert(key.to_owned(), value.to_owned());
    }

    /// Requests the deletion of the cluster.
    pub(crate) fn delete(&mut self) {
        let now = self.now;
        self.cluster().metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        if self.cluster().finalizers().is_empty() {
            self.vanish();
        }
    }

    pub(crate) fn status(&self) -> ClusterStatus {
        self.cluster.as_ref().unwrap().status.clone().unwrap_or_default()
    }

    pub(crate) fn condition(&self, kind: dfs_crd::ConditionType) -> (String, String, String) {
        let status = self.status();
        let there = status.conditions.iter().find(|there| there.type_ == kind.as_str()).unwrap();
        (there.status.clone(), there.reason.clone(), there.message.clone())
    }

    fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    pub(crate) fn observe(&self) -> Observed {
        let cluster = self.cluster.clone().unwrap();
        let typed = |kind: Kind, name: String| {
            self.objects.get(&(kind, name)).map(|(_, value)| value.clone())
        };
        let names = Names::of(&cluster);
        let deployment = typed(Kind::Deployment, names.coordinator());
        let stateful_set = typed(Kind::StatefulSet, names.datanode());
        let children = self.objects.iter().map(|((kind, name), (uid, value))| Child {
            target: Target { kind: *kind, name: name.clone(), uid: uid.clone() },
            owner: Owner::of(&serde_json::from_value(value["metadata"].clone()).unwrap(), &cluster),
            value: value.clone(),
        });
        let mut observed = Observed {
            now: self.now,
            operator_namespace: Some("operator".to_owned()),
            join: self.join.clone(),
            children: children.collect(),
            deployment: deployment.map(|d| serde_json::from_value::<Deployment>(d).unwrap()),
            stateful_set: stateful_set.map(|s| serde_json::from_value::<StatefulSet>(s).unwrap()),
            pods: self.pods.clone(),
            claims: self.claims.clone(),
            missing_classes: BTreeSet::new(),
            missing_secrets: BTreeSet::new(),
            has_service_monitors: false,
            definition: self.definition.clone(),
            snapshot: Snapshot::Unreachable("nobody".to_owned()),
            cluster,
        };
        let runs = observed.pods_of("coordinator").any(|pod| !self.dead.contains(&pod.name_any()));
        if runs && self.is_reachable {
            observed.snapshot = self.snapshot();
        }
        observed
    }

    fn snapshot(&self) -> Snapshot {
        let Some(id) = self.made else { return Snapshot::Uninitialised };
        let mut counts = ReplicationStatus::default();
        counts.under_replicated = self.under_replicated;
        counts.missing = self.missing;
        let mut status = dfs_client::ClusterStatus::new(id);
        status.replication_factor = self.replication.0.unsigned_abs();
        status.min_write_replicas = self.replication.1.unsigned_abs();
        status.nodes.clone_from(&self.nodes);
        status.replication = self.is_data_known.then_some(counts);
        "0.1.0".clone_into(&mut status.version);
        "c:7070".clone_into(&mut status.worker_lease_holder);
        Snapshot::Known(Box::new(status))
    }

    /// Reconciles once, cut off after `actions` actions; then nothing is published either.
    pub(crate) fn reconcile_up_to(&mut self, actions: usize) -> Decision {
        let seen = self.observe();
        let decision = decide(&seen);
        rules::check(self, &decision);
        let mut outcome = Outcome::default();
        for action in decision.actions.iter().take(actions) {
            self.carry_out(action, &mut outcome);
        }
        if actions >= decision.actions.len()
            && let Some(cluster) = &mut self.cluster
        {
            cluster.status = Some(status(&seen, &decision, &outcome));
        }
        decision
    }

    pub(crate) fn reconcile(&mut self) -> Decision {
        self.reconcile_up_to(usize::MAX)
    }

    /// Reconciles over time until nothing more happens, for as long as pods take to start.
    pub(crate) fn settle(&mut self) -> Decision {
        let mut quiet = 0;
        for _ in 0..400 {
            self.pass();
            if self.cluster.is_none() {
                return Decision::new(super::super::Case::Deleting);
            }
            let before = self.cluster().status.clone();
            let decision = self.reconcile();
            if self.cluster.is_none() {
                return decision;
            }
            // A maintenance ends by itself, which something may wait for.
            let is_over = self.nodes.iter().all(|node| node.maintenance_left.is_none());
            let is_quiet =
                is_over && decision.actions.is_empty() && self.cluster().status == before;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet == 3 {
                return decision;
            }
        }
        panic!("no end: {:?}\n{:#?}", decide(&self.observe()).actions, self.status());
    }

    fn carry_out(&mut self, action: &Action, outcome: &mut Outcome) {
        self.done.push(action.clone());
        match action {
            Action::AddFinalizer => {
                self.cluster().finalizers_mut().push(FINALIZER.to_owned());
            }
            Action::RemoveFinalizer => {
                self.cluster().finalizers_mut().retain(|finalizer| finalizer != FINALIZER);
                if self.cluster().metadata.deletion_timestamp.is_some() {
                    self.vanish();
                }
            }
            Action::CreateJoinSecret => {
                assert!(self.join.is_none(), "the join secret is created once");
                let uid = self.uid();
                // Ids are random: a second one never matches the metadata.
                let id = if self.made.is_some() { ClusterId(u128::from(self.uids)) } else { ID };
                self.join = Some(Join { uid, cluster_id: Some(id), has_secret: true });
            }
            Action::Apply { object, is_there } => {
                let key = (object.kind, object.name.clone());
                assert_eq!(*is_there, self.objects.contains_key(&key), "{key:?}");
                self.apply(object.kind, &object.name, object.value.clone());
            }
            Action::Delete(target) => self.remove(target),
            Action::Init(id) => {
                assert!(self.made.is_none_or(|made| made == *id));
                let spec = &self.cluster.as_ref().unwrap().spec;
                let min = spec.min_write_replicas.unwrap_or(spec.replication_factor / 2 + 1);
                self.replication = (spec.replication_factor, min);
                self.made = Some(*id);
                outcome.initialised = Some(*id);
            }
            Action::SetReplication(id) => {
                assert_eq!(self.made, Some(*id));
                let spec = &self.cluster.as_ref().unwrap().spec;
                let min = spec.min_write_replicas.unwrap_or(spec.replication_factor / 2 + 1);
                self.replication = (spec.replication_factor, min);
            }
            Action::Admit { node, pod, .. } => {
                assert!(self.pods.iter().any(|there| there.name_any() == *pod));
                self.node(*node).state = NodeState::Active;
            }
            Action::BeginMaintenance { node, ttl, .. } => {
                let others = self.nodes.iter().filter(|other| other.id != *node);
                let is_well = |state| matches!(state, NodeState::Active | NodeState::Removed);
                let is_alone = others.into_iter().all(|other| is_well(other.state));
                if self.is_unsafe || !is_alone {
                    outcome.refused = Some("chunks would be out of reach".to_owned());
                } else {
                    let node = self.node(*node);
                    node.maintenance_left = Some(*ttl);
                    node.state = NodeState::Maintenance;
                }
            }
            Action::EndMaintenance { node, .. } => {
                let node = self.node(*node);
                node.maintenance_left = None;
                node.state = NodeState::Active;
            }
            Action::RestartPod(target) => {
                self.pods.retain(|there| there.metadata.uid.as_ref() != Some(&target.uid));
            }
        }
    }

    fn node(&mut self, id: NodeId) -> &mut NodeStatus {
        self.nodes.iter_mut().find(|node| node.id == id).unwrap()
    }

    fn apply(&mut self, kind: Kind, name: &str, mut value: Value) {
        if kind == Kind::Claim {
            let mut claim: PersistentVolumeClaim = serde_json::from_value(value.clone()).unwrap();
            claim.metadata.uid = Some(self.uid());
            self.claims.push(claim);
            return;
        }
        let (uid, before) = match self.objects.get(&(kind, name.to_owned())) {
            Some((uid, before)) => (uid.clone(), Some(before.clone())),
            None => (self.uid(), None),
        };
        value["metadata"]["uid"] = uid.clone().into();
        let generation = before.as_ref().map_or(1, |before| {
            before["metadata"]["generation"].as_i64().unwrap()
                + i64::from(before["spec"] != value["spec"])
        });
        value["metadata"]["generation"] = generation.into();
        if let Some(before) = before {
            if let (Some(old), Some(new)) =
                (before["spec"]["replicas"].as_i64(), value["spec"]["replicas"].as_i64())
                && kind == Kind::StatefulSet
                && !self.cluster.as_ref().unwrap().spec.stopped
            {
                assert!(new >= old, "replicas are never lowered: {old} to {new}");
                assert_eq!(
                    before["spec"]["volumeClaimTemplates"],
                    value["spec"]["volumeClaimTemplates"]
                );
            }
            value["status"] = before["status"].clone();
        }
        self.objects.insert((kind, name.to_owned()), (uid, value));
    }

    fn remove(&mut self, target: &Target) {
        let cluster = self.cluster.as_ref().unwrap();
        let may = cluster.spec.deletion_confirmation == cluster.name_any()
            && cluster.metadata.deletion_timestamp.is_some();
        match target.kind {
            Kind::Claim => {
                assert!(may, "a claim is deleted: {target}");
                // A claim in use stays until its pod is gone; pods stop at once here.
                self.claims.retain(|claim| claim.uid().as_deref() != Some(&target.uid));
            }
            Kind::Secret => {
                assert!(may, "the join secret is deleted");
                self.join = None;
            }
            _ => {
                self.objects.retain(|_, (uid, _)| *uid != target.uid);
                self.collect();
            }
        }
    }

    /// Removes pods whose owner is gone.
    pub(crate) fn collect(&mut self) {
        let uids: BTreeSet<String> = self.objects.values().map(|(uid, _)| uid.clone()).collect();
        self.pods.retain(|pod| pod.owner_references().iter().all(|o| uids.contains(&o.uid)));
    }

    /// Removes the cluster and everything that it owned.
    fn vanish(&mut self) {
        self.cluster = None;
        self.objects.clear();
        self.collect();
    }

    /// Lets time pass: controllers create pods, pods become ready, datanodes join.
    pub(crate) fn pass(&mut self) {
        self.now += k8s_openapi::jiff::SignedDuration::from_secs(ROUND);
        self.collect();
        let round = Duration::from_secs(ROUND.unsigned_abs());
        for node in &mut self.nodes {
            node.maintenance_left = node.maintenance_left.and_then(|left| left.checked_sub(round));
            if node.maintenance_left.is_none() && node.state == NodeState::Maintenance {
                node.state = NodeState::Active;
            }
        }
        let workloads: Vec<_> = self
            .objects
            .iter()
            .filter(|((kind, _), _)| matches!(kind, Kind::Deployment | Kind::StatefulSet))
            .map(|((kind, name), (uid, value))| (*kind, name.clone(), uid.clone(), value.clone()))
            .collect();
        for (kind, name, uid, value) in workloads {
            self.run(kind, &name, &uid, &value);
        }
        self.join_nodes();
    }

    fn run(&mut self, kind: Kind, name: &str, uid: &str, value: &Value) {
        let replicas = value["spec"]["replicas"].as_i64().unwrap() as usize;
        let template = &value["spec"]["template"];
        let revision = template["metadata"]["annotations"][REVISION].as_str().unwrap();
        let ours = |pod: &Pod| pod.owner_references().iter().any(|owner| owner.uid == uid);
        let pod_name = |i: usize| format!("{name}-{i}");
        let wanted: BTreeSet<String> = (0..replicas).map(pod_name).collect();
        self.pods.retain(|pod| {
            let is_new = pod.annotations().get(REVISION).map(String::as_str) == Some(revision);
            // A Deployment replaces its pods; a StatefulSet waits for their deletion.
            !ours(pod) || wanted.contains(&pod.name_any()) && (kind == Kind::StatefulSet || is_new)
        });
        for name in &wanted {
            if !self.pods.iter().any(|pod| pod.name_any() == *name) {
                let pod = self.pod(name, uid, kind, template);
                self.pods.push(pod);
                if kind == Kind::StatefulSet {
                    self.claim(name, value);
                }
                continue;
            }
            let is_dead = self.dead.contains(name);
            let pod = self.pods.iter_mut().find(|pod| pod.name_any() == *name).unwrap();
            let is_bad = self.bad.contains(&pod.annotations()[REVISION]) || is_dead;
            let word = if is_bad { "False" } else { "True" };
            pod.status = serde_json::from_value(json!({
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": word}],
            }))
            .unwrap();
        }
        let ready = self.pods.iter().filter(|pod| ours(pod) && is_ready(pod)).count();
        let (_, value) = self.objects.get_mut(&(kind, name.to_owned())).unwrap();
        value["status"] = json!({
            "observedGeneration": value["metadata"]["generation"],
            "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": ready,
        });
    }

    fn pod(&mut self, name: &str, owner: &str, kind: Kind, template: &Value) -> Pod {
        let mut pod = template.clone();
        pod["metadata"]["name"] = name.into();
        pod["metadata"]["namespace"] = "ns".into();
        pod["metadata"]["uid"] = self.uid().into();
        pod["metadata"]["creationTimestamp"] = self.now.to_string().into();
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": kind.name(), "name": "w", "uid": owner,
            "controller": true,
        }]);
        pod["status"] = json!({"phase": "Pending"});
        if kind == Kind::StatefulSet {
            let claim = json!({
                "name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")},
            });
            pod["spec"]["volumes"].as_array_mut().unwrap().push(claim);
        }
        serde_json::from_value(pod).unwrap()
    }

    /// Creates the claim of a pod that has none.
    fn claim(&mut self, pod: &str, set: &Value) {
        let template = &set["spec"]["volumeClaimTemplates"][0];
        let name = format!("{}-{pod}", template["metadata"]["name"].as_str().unwrap());
        if self.claims.iter().any(|claim| claim.name_any() == name) {
            return;
        }
        let mut claim: PersistentVolumeClaim = serde_json::from_value(template.clone()).unwrap();
        claim.metadata.name = Some(name);
        claim.metadata.uid = Some(self.uid());
        self.claims.push(claim);
    }

    fn join_nodes(&mut self) {
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.made.is_some()) else { return };
        let names = Names::of(cluster);
        let ready: Vec<String> = self
            .pods
            .iter()
            .filter(|pod| pod.name_any().contains("-datanode-") && is_ready(pod))
            .map(kube::ResourceExt::name_any)
            .collect();
        for name in &ready {
            let address = names.datanode_address(name);
            let is_here =
                |node: &NodeStatus| node.address == address && node.state != NodeState::Removed;
            if !self.nodes.iter().any(is_here) {
                self.uids += 1;
                let id = NodeId(u128::from(self.uids));
                let mut node = NodeStatus::new(id, address, NodeState::Joining);
                "z".clone_into(&mut node.zone);
                "h".clone_into(&mut node.host);
                "0.1.0".clone_into(&mut node.version);
                node.disks = vec![DiskStatus::new(DiskId(1), 1 << 30)];
                self.nodes.push(node);
            }
        }
        for node in &mut self.nodes {
            let is_up = ready.contains(&pod_of(node).to_owned());
            node.state = match (node.state, is_up) {
                (NodeState::Active, false) => NodeState::Suspect,
                (NodeState::Suspect | NodeState::Lost, true) => NodeState::Active,
                (state, _) => state,
            };
        }
    }

    /// Pauses or resumes the operator.
    pub(crate) fn pause(&mut self, paused: bool) {
        if paused {
            self.annotate(PAUSED, "true");
        } else {
            self.cluster().annotations_mut().remove(PAUSED);
        }
    }
}

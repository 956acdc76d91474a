//! The observed state of one cluster, at one moment.

use std::collections::{BTreeMap, BTreeSet};

use dfs_client::{ClusterStatus, NodeStatus};
use dfs_crd::DfsCluster;
use dfs_types::{ClusterId, NodeState};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use serde_json::Value;

use crate::coordinator::{Addresses, Snapshot};
use crate::definition::Definition;
use crate::kind::{Kind, Target};

/// Everything that decisions about one cluster depend on.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The resource.
    pub cluster: DfsCluster,
    /// Time of the observation.
    pub now: Timestamp,
    /// Namespace of the operator; `None` outside Kubernetes.
    pub operator_namespace: Option<String>,
    /// The Secret with the join secret, without the secret itself.
    pub join: Option<Join>,
    /// Objects of the kinds created by the operator, with the labels of the cluster.
    pub children: Vec<Child>,
    /// The coordinators' Deployment.
    pub deployment: Option<Deployment>,
    /// The datanodes' StatefulSet.
    pub stateful_set: Option<StatefulSet>,
    /// Pods with the labels of the cluster.
    pub pods: Vec<Pod>,
    /// Claims with the labels of the cluster.
    pub claims: Vec<PersistentVolumeClaim>,
    /// StorageClasses that claims wait for and that do not exist.
    pub missing_classes: BTreeSet<String>,
    /// Secrets named in the spec that do not exist.
    pub missing_secrets: BTreeSet<String>,
    /// True if ServiceMonitors can be created.
    pub has_service_monitors: bool,
    /// State of the definition of the resource.
    pub definition: Definition,
    /// The status that the coordinators report.
    pub snapshot: Snapshot,
}

/// Public part of the Secret with the join secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Its uid.
    pub uid: String,
    /// Id of the cluster in it; `None` if absent or malformed.
    pub cluster_id: Option<ClusterId>,
    /// True if it has a join secret.
    pub has_secret: bool,
}

/// An existing object.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// Its identity.
    pub target: Target,
    /// Its owner.
    pub owner: Owner,
    /// Its content.
    pub value: Value,
}

/// Owner of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This cluster.
    Ours,
    /// A deleted cluster of the same name; the object will be garbage-collected.
    Former,
    /// None: a claim or the Secret, which outlive clusters.
    Nobody,
    /// Another object, described for people.
    Other(String),
}

impl Owner {
    /// Returns the owner of an object with these metadata.
    pub fn of(metadata: &ObjectMeta, cluster: &DfsCluster) -> Self {
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) else {
            return Self::Nobody;
        };
        if Some(&owner.uid) == cluster.metadata.uid.as_ref() {
            Self::Ours
        } else if owner.kind == "DfsCluster" && owner.name == cluster.name_any() {
            Self::Former
        } else {
            Self::Other(format!("{} {}", owner.kind, owner.name))
        }
    }
}

impl Observed {
    /// Returns the child of this kind and name.
    pub fn child(&self, kind: Kind, name: &str) -> Option<&Child> {
        self.children.iter().find(|c| c.target.kind == kind && c.target.name == name)
    }

    /// Returns the status of the cluster, if a coordinator reported one.
    pub fn snapshot(&self) -> Option<&ClusterStatus> {
        match &self.snapshot {
            Snapshot::Known(snapshot) => Some(snapshot),
            Snapshot::Uninitialised | Snapshot::Unreachable(_) => None,
        }
    }

    /// Returns the cluster id in the status.
    pub fn known_id(&self) -> Option<&str> {
        self.cluster.status.as_ref()?.cluster_id.as_deref()
    }

    /// Returns the pods of a component, by name.
    pub fn pods_of<'a>(&'a self, component: &'a str) -> impl Iterator<Item = &'a Pod> {
        let label = "app.kubernetes.io/component";
        self.pods.iter().filter(move |pod| pod.labels().get(label).is_some_and(|c| c == component))
    }

    /// Returns the addresses of the coordinators.
    pub fn coordinators(&self) -> Addresses {
        addresses(self.pods_of("coordinator"))
    }

    /// Returns the number of datanodes that the StatefulSet, or claims without one, represent: none
    /// of them may be removed.
    pub fn datanodes(&self) -> i32 {
        let running = self.stateful_set.as_ref().and_then(|set| set.spec.as_ref()?.replicas);
        match running {
            Some(replicas) if replicas > 0 => replicas,
            _ => {
                let prefix = format!("{}-datanode-", self.cluster.name_any());
                let claims = self.claims.iter().filter(|c| c.metadata.deletion_timestamp.is_none());
                let names = claims.map(kube::ResourceExt::name_any);
                let ordinals = names.filter_map(|name| {
                    let (volume, ordinal) = name.split_once(&prefix)?;
                    volume.starts_with("data-").then(|| ordinal.parse::<i32>().ok())?
                });
                ordinals.max().map_or(0, |highest| highest.saturating_add(1))
            }
        }
    }

    /// Returns the time since `then`.
    pub fn since(&self, then: Timestamp) -> SignedDuration {
        self.now.duration_since(then)
    }
}

/// Returns the pod that a node runs in: the first label of its host name.
pub fn pod_of(node: &NodeStatus) -> &str {
    node.address.split(['.', ':']).next().unwrap_or_default()
}

/// Returns the nodes that are part of the cluster, by pod. A new node takes precedence over a lost
/// one in the same pod.
pub fn by_pod(status: &ClusterStatus) -> BTreeMap<&str, &NodeStatus> {
    let is_silent = |node: &NodeStatus| matches!(node.state, NodeState::Suspect | NodeState::Lost);
    let mut nodes: Vec<_> =
        status.nodes.iter().filter(|node| node.state != NodeState::Removed).collect();
    nodes.sort_by_key(|node| !is_silent(node));
    nodes.into_iter().map(|node| (pod_of(node), node)).collect()
}

/// Returns the addresses of pods.
pub fn addresses<'a>(pods: impl Iterator<Item = &'a Pod>) -> Addresses {
    let of = |pod: &Pod| {
        let status = pod.status.as_ref()?;
        let runs = status.phase.as_deref() == Some("Running");
        let stays = pod.metadata.deletion_timestamp.is_none();
        let ip = status.pod_ip.as_deref().filter(|_| runs && stays)?;
        let port = crate::COORDINATOR_PORT;
        Some(if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") })
    };
    pods.filter_map(of).collect()
}

/// Returns whether a pod reports that it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

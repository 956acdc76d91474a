//! Reads everything about one cluster, once. Nothing comes from a cache: deletions based on it
//! require the true state.

use std::collections::BTreeSet;

use dfs_crd::DfsCluster;
use dfs_types::ClusterId;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::build::Names;
use crate::coordinator::{Coordinator, Snapshot};
use crate::definition::Definition;
use crate::kind::{Kind, Target};
use crate::observed::{Child, Join, Observed, Owner};

/// Maximum number of objects of one kind of a cluster: 500 datanodes with 16 volumes each.
const OBJECTS_MAX: u32 = 8_000;

/// A read failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}")]
pub struct ObserveError {
    what: String,
    #[source]
    source: kube::Error,
}

/// Observes the cluster of this name; `None` if there is none.
pub async fn observe(
    client: &Client,
    coordinator: &dyn Coordinator,
    operator_namespace: Option<&str>,
    namespace: &str,
    name: &str,
) -> Result<Option<Observed>, ObserveError> {
    // Boxed: many replies are awaited at once, and callers need not hold that much state.
    Box::pin(read_all(client, coordinator, operator_namespace, namespace, name)).await
}

async fn read_all(
    client: &Client,
    coordinator: &dyn Coordinator,
    operator_namespace: Option<&str>,
    namespace: &str,
    name: &str,
) -> Result<Option<Observed>, ObserveError> {
    let api: Api<DfsCluster> = Api::namespaced(client.clone(), namespace);
    let read = api.get_opt(name).await.map_err(|source| failed("DfsCluster", name, source))?;
    let Some(cluster) = read else { return Ok(None) };
    let reader = Reader { client, namespace, name, cluster: &cluster };

    let (accounts, config_maps, services, policies, budgets, deployments, sets) = tokio::try_join!(
        reader.children::<ServiceAccount>(Kind::ServiceAccount),
        reader.children::<ConfigMap>(Kind::ConfigMap),
        reader.children::<Service>(Kind::Service),
        reader.children::<NetworkPolicy>(Kind::NetworkPolicy),
        reader.children::<PodDisruptionBudget>(Kind::Budget),
        reader.list::<Deployment>(Kind::Deployment),
        reader.list::<StatefulSet>(Kind::StatefulSet),
    )?;
    let (pods, claims, join, monitors) = tokio::try_join!(
        reader.list::<Pod>(Kind::Pod),
        reader.claims(),
        reader.join_secret(),
        reader.service_monitors(),
    )?;
    let (missing_classes, missing_secrets) =
        tokio::try_join!(reader.missing_classes(&claims), reader.missing_secrets())?;

    let names = Names::of(&cluster);
    let mut children = [accounts, config_maps, services, policies, budgets].concat();
    children.extend(deployments.iter().map(|there| reader.child(Kind::Deployment, there)));
    children.extend(sets.iter().map(|there| reader.child(Kind::StatefulSet, there)));
    let has_service_monitors = monitors.is_some();
    children.extend(monitors.unwrap_or_default());

    let deployment = deployments.into_iter().find(|d| d.name_any() == names.coordinator());
    let stateful_set = sets.into_iter().find(|set| set.name_any() == names.datanode());
    let mut observed = Observed {
        now: Timestamp::now(),
        operator_namespace: operator_namespace.map(ToOwned::to_owned),
        join,
        children,
        deployment,
        stateful_set,
        pods,
        claims,
        missing_classes,
        missing_secrets,
        has_service_monitors,
        definition: Definition::Unknown,
        snapshot: Snapshot::Unreachable("coordinators were not asked".to_owned()),
        cluster,
    };
    // Deletion of a cluster must not wait for coordinators, which may be dead.
    if observed.cluster.metadata.deletion_timestamp.is_none() {
        observed.snapshot = coordinator.snapshot(&observed.coordinators()).await;
    }
    Ok(Some(observed))
}

struct Reader<'a> {
    client: &'a Client,
    namespace: &'a str,
    name: &'a str,
    cluster: &'a DfsCluster,
}

impl Reader<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    fn labelled(&self) -> ListParams {
        let selector =
            format!("app.kubernetes.io/name=dfs,app.kubernetes.io/instance={}", self.name);
        ListParams::default().labels(&selector).limit(OBJECTS_MAX)
    }

    async fn list<K>(&self, kind: Kind) -> Result<Vec<K>, ObserveError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let listed = self.api::<K>().list(&self.labelled()).await;
        let mut items = listed.map_err(|source| failed(kind.name(), "list", source))?.items;
        for item in &mut items {
            item.meta_mut().managed_fields = None;
        }
        Ok(items)
    }

    async fn children<K>(&self, kind: Kind) -> Result<Vec<Child>, ObserveError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Serialize,
    {
        Ok(self.list::<K>(kind).await?.iter().map(|there| self.child(kind, there)).collect())
    }

    fn child<K: Resource + Serialize>(&self, kind: Kind, there: &K) -> Child {
        let metadata = there.meta();
        let target = Target {
            kind,
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        };
        let owner = Owner::of(metadata, self.cluster);
        Child { target, owner, value: serde_json::to_value(there).unwrap_or_default() }
    }

    /// Returns the claims of the cluster; the metadata claim also by name, as it may be restored
    /// from a backup.
    async fn claims(&self) -> Result<Vec<PersistentVolumeClaim>, ObserveError> {
        let mut claims = self.list::<PersistentVolumeClaim>(Kind::Claim).await?;
        let name = Names::of(self.cluster).metadata_claim();
        if !claims.iter().any(|claim| claim.name_any() == name) {
            let read = self.api::<PersistentVolumeClaim>().get_opt(&name).await;
            claims.extend(read.map_err(|source| failed(Kind::Claim.name(), &name, source))?);
        }
        Ok(claims)
    }

    async fn join_secret(&self) -> Result<Option<Join>, ObserveError> {
        let name = Names::of(self.cluster).join_secret();
        let read = self.api::<Secret>().get_opt(&name).await;
        let Some(secret) = read.map_err(|source| failed("Secret", &name, source))? else {
            return Ok(None);
        };
        let uid = secret.uid().unwrap_or_default();
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| std::str::from_utf8(&data.get(key)?.0).ok().map(str::trim);
        Ok(Some(Join {
            uid,
            cluster_id: text("cluster-id").and_then(|id| id.parse::<ClusterId>().ok()),
            has_secret: text("join-secret").is_some_and(|secret| !secret.is_empty()),
        }))
    }

    /// Returns the ServiceMonitors of the cluster; `None` where the kind is not served.
    async fn service_monitors(&self) -> Result<Option<Vec<Child>>, ObserveError> {
        let kind = Kind::ServiceMonitor;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), self.namespace, &kind.resource());
        match api.list(&self.labelled()).await {
            Ok(list) => Ok(Some(list.items.iter().map(|there| self.child(kind, there)).collect())),
            // The chart may not grant access to what the cluster does not serve.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(None),
            Err(source) => Err(failed(kind.name(), "list", source)),
        }
    }

    /// Returns the StorageClasses named by unbound claims that do not exist; none if the operator
    /// has no permission to read them.
    async fn missing_classes(
        &self,
        claims: &[PersistentVolumeClaim],
    ) -> Result<BTreeSet<String>, ObserveError> {
        let is_bound = |claim: &&PersistentVolumeClaim| {
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
        };
        let named: BTreeSet<String> = claims
            .iter()
            .filter(|claim| !is_bound(claim))
            .filter_map(|claim| claim.spec.as_ref()?.storage_class_name.clone())
            .filter(|class| !class.is_empty())
            .collect();
        let api: Api<StorageClass> = Api::all(self.client.clone());
        let mut missing = BTreeSet::new();
        for class in named {
            match api.get_metadata_opt(&class).await {
                Ok(None) => drop(missing.insert(class)),
                Ok(Some(_)) => {}
                Err(kube::Error::Api(status)) if status.code == 403 => {}
                Err(source) => return Err(failed("StorageClass", &class, source)),
            }
        }
        Ok(missing)
    }

    async fn missing_secrets(&self) -> Result<BTreeSet<String>, ObserveError> {
        let etcd = self.cluster.spec.coordinator.metadata.etcd.as_ref();
        let Some(name) = etcd.and_then(|etcd| etcd.tls_secret_name.as_deref()) else {
            return Ok(BTreeSet::new());
        };
        let read = self.api::<Secret>().get_metadata_opt(name).await;
        let there = read.map_err(|source| failed("Secret", name, source))?;
        Ok(if there.is_some() { BTreeSet::new() } else { BTreeSet::from([name.to_owned()]) })
    }
}

fn failed(kind: &str, name: &str, source: kube::Error) -> ObserveError {
    ObserveError { what: format!("{kind} {name}"), source }
}

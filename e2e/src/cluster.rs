//! A DfsCluster.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::environment::Environment;
use crate::rollout::is_ready;
use crate::wait::until;

/// Time limit for the cluster of a minimal manifest, with the images present.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Time limit for killed pods to serve again, even if their node lost power.
const PODS_LIMIT: Duration = Duration::from_mins(3);
/// Field manager of the tests.
const MANAGER: &str = "e2e";

/// A DfsCluster by name, whether it exists or not.
#[derive(Clone)]
pub struct Cluster {
    /// The Kubernetes cluster it is in.
    pub env: Environment,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Cluster {
    pub(crate) fn new(env: &Environment, namespace: &str, name: &str) -> Self {
        Self { env: env.clone(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn api(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.env.client.clone(), &self.namespace, &resource())
    }

    /// Applies a complete spec.
    pub async fn apply(&self, spec: Value) -> Result<()> {
        self.apply_with(spec, &PatchParams::apply(MANAGER).force()).await
    }

    /// Validates a spec in the API server, without storing it.
    pub async fn dry_run(&self, spec: Value) -> Result<()> {
        self.apply_with(spec, &PatchParams::apply(MANAGER).force().dry_run()).await
    }

    async fn apply_with(&self, spec: Value, params: &PatchParams) -> Result<()> {
        let object = json!({
            "apiVersion": "dfs.io/v1alpha1",
            "kind": "DfsCluster",
            "metadata": { "name": self.name },
            "spec": spec,
        });
        self.api().patch(&self.name, params, &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// Applies the minimal spec, and waits until it is ready.
    pub async fn start(&self) -> Result<()> {
        self.apply(minimal()).await?;
        self.wait_ready().await
    }

    /// Applies a change as a merge patch.
    pub async fn merge(&self, change: Value) -> Result<()> {
        self.api().patch(&self.name, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    /// Returns the object, if it exists.
    pub async fn get(&self) -> Result<Option<DynamicObject>> {
        Ok(self.api().get_opt(&self.name).await?)
    }

    /// Returns its status.
    pub async fn status(&self) -> Result<Value> {
        let object = self.get().await?.context("the DfsCluster is gone")?;
        Ok(object.data["status"].clone())
    }

    /// Returns a condition, if it is set.
    pub async fn condition(&self, kind: &str) -> Result<Option<Value>> {
        Ok(find_condition(&self.status().await?, kind).cloned())
    }

    /// Waits until it is ready, as its current spec says.
    pub async fn wait_ready(&self) -> Result<()> {
        self.wait_ready_within(READY_LIMIT).await
    }

    /// Like [`Cluster::wait_ready`], with another time limit.
    pub async fn wait_ready_within(&self, limit: Duration) -> Result<()> {
        until(&format!("condition Ready of {}", self.name), limit, async || {
            let object = self.get().await?.context("the DfsCluster is gone")?;
            let status = &object.data["status"];
            let is_seen = status["observedGeneration"].as_i64() == object.metadata.generation;
            let is = |kind, wanted| {
                find_condition(status, kind).is_some_and(|condition| condition["status"] == wanted)
            };
            // A cluster also serves while it is being changed.
            if is_seen && is("Ready", "True") && is("Reconciling", "False") {
                return Ok(Some(()));
            }
            bail!("its status is {status}")
        })
        .await
    }

    /// Waits until a condition has a status.
    pub async fn wait_condition(&self, kind: &str, status: &str, limit: Duration) -> Result<Value> {
        until(&format!("condition {kind}={status} of {}", self.name), limit, async || {
            let condition = self.condition(kind).await?;
            match condition {
                Some(condition) if condition["status"] == status => Ok(Some(condition)),
                other => bail!("it is {other:?}"),
            }
        })
        .await
    }

    /// Deletes it and waits until it is gone.
    pub async fn delete(&self) -> Result<()> {
        self.begin_delete().await?;
        self.wait_gone().await
    }

    /// Deletes it and does not wait.
    pub async fn begin_delete(&self) -> Result<()> {
        self.api().delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until it is gone.
    pub async fn wait_gone(&self) -> Result<()> {
        until(&format!("the end of {}", self.name), Duration::from_mins(1), async || {
            Ok(self.get().await?.is_none().then_some(()))
        })
        .await
    }

    /// Deletes all clusters in a namespace. If no operator is left to release them, removes their
    /// finalizers.
    pub(crate) async fn delete_all(env: &Environment, namespace: &str) -> Result<()> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(env.client.clone(), namespace, &resource());
        let names = async || -> Result<Vec<String>> {
            let list = api.list(&ListParams::default()).await?;
            Ok(list.iter().map(ResourceExt::name_any).collect())
        };
        for name in names().await? {
            api.delete(&name, &DeleteParams::default()).await?;
        }
        let gone = until("the end of the clusters", Duration::from_secs(30), async || {
            Ok(names().await?.is_empty().then_some(()))
        });
        if gone.await.is_ok() {
            return Ok(());
        }
        for name in names().await? {
            let free = json!({ "metadata": { "finalizers": null } });
            api.patch(&name, &PatchParams::default(), &Patch::Merge(free)).await?;
        }
        Ok(())
    }

    /// Returns its URL for pods.
    pub fn url(&self) -> String {
        format!("http://{}-coordinator.{}.svc:7070", self.name, self.namespace)
    }

    /// Returns the Deployment of its coordinators.
    pub async fn deployment(&self) -> Result<Deployment> {
        let api: Api<Deployment> = Api::namespaced(self.env.client.clone(), &self.namespace);
        Ok(api.get(&format!("{}-coordinator", self.name)).await?)
    }

    /// Returns the StatefulSet of its datanodes.
    pub async fn statefulset(&self) -> Result<StatefulSet> {
        let api: Api<StatefulSet> = Api::namespaced(self.env.client.clone(), &self.namespace);
        Ok(api.get(&format!("{}-datanode", self.name)).await?)
    }

    /// Returns the pods of a component, `coordinator` or `datanode`, by name.
    pub async fn pods(&self, component: &str) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.env.client.clone(), &self.namespace);
        let ours = format!("{},app.kubernetes.io/component={component}", self.selector());
        let mut pods = api.list(&ListParams::default().labels(&ours)).await?.items;
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// Waits until exactly `count` pods of a component exist, and all serve.
    pub async fn wait_pods_ready(&self, component: &str, count: usize) -> Result<()> {
        let what = format!("{count} pods of {component} that serve");
        until(&what, PODS_LIMIT, async || {
            let pods = self.pods(component).await?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!(ready == count && pods.len() == count, "{ready} of {} serve", pods.len());
            Ok(Some(()))
        })
        .await
    }

    /// Returns the claims of the cluster.
    pub async fn claims(&self) -> Result<Vec<PersistentVolumeClaim>> {
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(self.env.client.clone(), &self.namespace);
        Ok(api.list(&ListParams::default().labels(&self.selector())).await?.items)
    }

    /// Returns the label selector of all its objects.
    pub fn selector(&self) -> String {
        format!("app.kubernetes.io/name=dfs,app.kubernetes.io/instance={}", self.name)
    }
}

/// Returns the minimal spec.
pub fn minimal() -> Value {
    json!({ "datanodes": { "storage": { "size": "4Gi" } } })
}

fn find_condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Returns the kind, without the types of the operator: tests use what users see.
pub(crate) fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("dfs.io", "v1alpha1", "DfsCluster");
    ApiResource::from_gvk_with_plural(&kind, "dfsclusters")
}

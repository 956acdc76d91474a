//! Watches that trigger the reconciliation of a cluster when one of its objects changes, and the
//! health of these watches. Only object metadata is watched, and none of it is kept.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_crd::DfsCluster;
use dfs_types::with_causes;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::time::Instant;

use crate::metrics::OperatorMetrics;

/// Time that watches may fail before the process counts as stalled.
const STALLED_AFTER: Duration = Duration::from_mins(2);
/// Time after the last error until they count as working again; longer than their retry delay.
const QUIET: Duration = Duration::from_secs(75);

/// A controller of clusters.
pub(crate) type ClusterController = Controller<DeserializeGuard<DfsCluster>>;

/// A controller of the clusters of one namespace, or of all, that reconciles a cluster when any of
/// its objects changes.
pub(crate) fn controller(
    client: &Client,
    namespace: Option<&str>,
    metrics: &OperatorMetrics,
) -> ClusterController {
    let source = Source { client, namespace, metrics };
    let controller = Controller::new(source.api(), watcher::Config::default());
    let controller = source.watch::<Pod>(controller);
    let controller = source.watch::<PersistentVolumeClaim>(controller);
    let controller = source.watch::<Deployment>(controller);
    let controller = source.watch::<StatefulSet>(controller);
    let controller = source.watch::<Service>(controller);
    let controller = source.watch::<ConfigMap>(controller);
    let controller = source.watch::<ServiceAccount>(controller);
    let controller = source.watch::<NetworkPolicy>(controller);
    source.watch::<PodDisruptionBudget>(controller)
}

struct Source<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    metrics: &'a OperatorMetrics,
}

impl Source<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn watch<K>(&self, controller: ClusterController) -> ClusterController
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let config = watcher::Config::default().labels("app.kubernetes.io/name=dfs");
        let metrics = self.metrics.clone();
        controller.watches(self.api::<PartialObjectMeta<K>>(), config, move |object| {
            let cluster = cluster_of(&object);
            if let Some(cluster) = &cluster {
                let namespace = cluster.namespace.as_deref().unwrap_or_default();
                metrics.queued(namespace, &cluster.name);
            }
            cluster
        })
    }
}

/// Returns the cluster that an object belongs to, by its labels.
fn cluster_of<K: Resource>(object: &K) -> Option<ObjectRef<DeserializeGuard<DfsCluster>>> {
    let cluster = object.labels().get("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(cluster).within(&object.namespace()?))
}

/// Health of the watches. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchHealth(Arc<Mutex<Option<Outage>>>);

#[derive(Debug)]
struct Outage {
    first: Instant,
    last: Instant,
    why: String,
}

impl WatchHealth {
    /// Records that a watch failed. It is retried.
    pub(crate) fn failed(&self, error: &watcher::Error) {
        let (now, why) = (Instant::now(), with_causes(error));
        let mut outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outage) = outage.as_mut().filter(|outage| now - outage.last <= QUIET) {
            (outage.last, outage.why) = (now, why);
        } else {
            tracing::warn!(error = why, "a watch failed; retrying");
            *outage = Some(Outage { first: now, last: now, why });
        }
    }

    /// Returns why no events arrive once that has lasted too long.
    pub(crate) fn stalled(&self) -> Option<String> {
        let now = Instant::now();
        let outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stalled = |outage: &&Outage| {
            now - outage.last <= QUIET && outage.last - outage.first >= STALLED_AFTER
        };
        outage.as_ref().filter(is_stalled).map(|outage| format!("watches fail: {}", outage.why))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn c47_watches_are_stalled_after_two_minutes_of_errors() {
        let (watch_health, error) = (WatchHealth::default(), watcher::Error::NoResourceVersion);
        for _ in 0..4 {
            watch_health.failed(&error);
            assert_eq!(watch_health.stalled(), None);
            advance(Duration::from_secs(30)).await;
        }
        watch_health.failed(&error);
        assert!(watch_health.stalled().is_some());
        advance(QUIET + Duration::from_secs(1)).await;
        assert_eq!(watch_health.stalled(), None, "a silent watch is healthy");
    }

    #[tokio::test(start_paused = true)]
    async fn c47_errors_that_stop_are_forgotten() {
        let (watch_health, error) = (WatchHealth::default(), watcher::Error::NoResourceVersion);
        watch_health.failed(&error);
        advance(Duration::from_mins(3)).await;
        watch_health.failed(&error);
        assert_eq!(watch_health.stalled(), None, "a separate outage");
    }
}

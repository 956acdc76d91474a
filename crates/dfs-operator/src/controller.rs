//! Reconciles clusters when one of their objects changes.

use std::sync::Arc;
use std::time::Duration;

use dfs_crd::DfsCluster;
use dfs_runtime::{Metrics, Readiness, Shutdown};
use dfs_types::with_causes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client};

use crate::FIELD_MANAGER;
use crate::backoff::Backoff;
use crate::coordinator::Coordinator;
use crate::definition::{self, Known};
use crate::metrics::OperatorMetrics;
use crate::reconcile::{Context, failed, reconcile};
use crate::watches::{self, ClusterController, WatchHealth};

/// Clusters reconciled concurrently, per watched namespace.
const CONCURRENCY: u16 = 8;
/// Time during which changes are gathered before a cluster is reconciled.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// Interval between checks of the watches' health.
const HEALTH_EVERY: Duration = Duration::from_secs(5);

/// The pod that the operator runs in.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The pod's name, or a substitute.
    pub name: String,
    /// Its namespace, or that of the lease.
    pub namespace: String,
    /// True if such a pod exists.
    pub is_in_cluster: bool,
}

/// The active part of the operator.
pub struct Operator {
    context: Arc<Context>,
    namespaces: Vec<Option<String>>,
    watch_health: WatchHealth,
}

impl Operator {
    /// Creates an operator of these namespaces, or of all if empty.
    pub fn new(
        client: Client,
        coordinator: Arc<dyn Coordinator>,
        metrics: &Metrics,
        namespaces: Vec<String>,
        pod: &Pod,
    ) -> Self {
        let reporter =
            Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(pod.name.clone()) };
        let context = Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            coordinator,
            operator_namespace: pod.is_in_cluster.then(|| pod.namespace.clone()),
            metrics: OperatorMetrics::new(metrics),
            backoff: Backoff::new(),
            definition: Known::default(),
        };
        let namespaces = if namespaces.is_empty() {
            vec![None]
        } else {
            namespaces.into_iter().map(Some).collect()
        };
        Self { context: Arc::new(context), namespaces, watch_health: WatchHealth::default() }
    }

    /// Publishes whether this operator is the active one.
    pub fn show_leader(&self, is_leader: bool) {
        self.context.metrics.is_leader.set(i64::from(is_leader));
    }

    /// Reconciles one cluster now, as a watch event would. Returns whether that succeeded. A failure
    /// is not retried.
    pub async fn reconcile_once(&self, namespace: &str, name: &str) -> bool {
        let api: Api<DeserializeGuard<DfsCluster>> =
            Api::namespaced(self.context.client.clone(), namespace);
        match api.get_opt(name).await {
            Ok(Some(cluster)) => {
                reconcile(Arc::new(cluster), Arc::clone(&self.context)).await.is_ok()
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Keeps `health` up to date with the watches. Never returns.
    pub async fn watch_health(&self, health: &Readiness) {
        loop {
            match self.watch_health.stalled() {
                Some(reason) if health.reason().is_none() => {
                    tracing::error!(reason, "watches are dead");
                    health.not_ready(reason);
                }
                Some(_) => {}
                None => health.ready(),
            }
            tokio::time::sleep(HEALTH_EVERY).await;
        }
    }

    /// Acts until shutdown is requested, then finishes what was started. Ready once all clusters
    /// are known.
    pub async fn run(&self, readiness: &Readiness, shutdown: &Shutdown) {
        let controllers: Vec<_> =
            self.namespaces.iter().map(|namespace| self.controller(namespace.as_deref())).collect();
        let stores: Vec<_> = controllers.iter().map(Controller::store).collect();
        let synced = async {
            for store in stores {
                // Fails if the controller ends first.
                if store.wait_until_ready().await.is_err() {
                    return;
                }
            }
            readiness.ready();
            tracing::info!("all clusters are known");
        };
        let runs = controllers.into_iter().map(|controller| {
            let stop = shutdown.clone();
            let stop = async move { stop.requested().await };
            controller
                .graceful_shutdown_on(stop)
                .run(reconcile, failed, Arc::clone(&self.context))
                .for_each(|result| {
                    if let Err(error) = result {
                        self.complain(&error);
                    }
                    std::future::ready(())
                })
        });
        // Before anything is done, and from then on.
        self.check_definition().await;
        tokio::select! {
            _ = async { tokio::join!(synced, join_all(runs)) } => {}
            () = self.watch_definition() => {}
        }
    }

    /// Checks whether the API server's definition is as new as this operator. Definitions are
    /// cluster-scoped, so an operator that is limited to namespaces may not read them and does not
    /// try.
    async fn check_definition(&self) {
        if self.namespaces.iter().all(Option::is_none) {
            self.context.definition.refresh(&self.context.client).await;
        }
    }

    /// Checks the definition periodically. Never returns.
    async fn watch_definition(&self) {
        loop {
            tokio::time::sleep(definition::EVERY).await;
            self.check_definition().await;
        }
    }

    fn controller(&self, namespace: Option<&str>) -> ClusterController {
        let config = controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE);
        let Context { client, metrics, .. } = &*self.context;
        watches::controller(client, namespace, metrics).with_config(config)
    }

    fn complain(&self, error: &controller::Error<crate::reconcile::Error, watcher::Error>) {
        match error {
            // Already logged and counted.
            controller::Error::ReconcilerFailed(..) => {}
            // An object with the label of a cluster that does not exist, or no longer.
            controller::Error::ObjectNotFound(cluster) => {
                let namespace = cluster.namespace.as_deref().unwrap_or_default();
                self.context.metrics.forget(namespace, &cluster.name);
            }
            controller::Error::QueueError(error) => self.watch_health.failed(error),
            controller::Error::RunnerError(error) => {
                tracing::error!(error = %with_causes(error), "the controller failed");
            }
        }
    }
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("namespaces", &self.namespaces).finish_non_exhaustive()
    }
}

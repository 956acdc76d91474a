//! The pods of a cluster, and the mapping of addresses to pods.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Instant;

use crate::Error;
use crate::asker::Asker;

/// Time that a list of pods stays valid.
const FRESH: Duration = Duration::from_secs(10);
/// Minimum time between two lists.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// Pods per page of a list, and maximum number of pages.
const PAGE: u32 = 500;
const PAGES_MAX: usize = 20;
/// Name of the gRPC port.
const GRPC: &str = "grpc";

/// Component that a pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    Coordinator,
    Datanode,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) component: Component,
    pub(crate) ip: Option<String>,
    pub(crate) grpc_port: u16,
    /// Pending, Running, …
    pub(crate) phase: String,
    pub(crate) is_ready: bool,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readiness = if self.is_ready { "ready" } else { "not ready" };
        write!(f, "pod {} is {}, {readiness}", self.name, self.phase)
    }
}

impl Pod {
    /// Extracts the relevant parts of a pod; `None` if it is not part of dfs.
    fn of(pod: &KubePod) -> Option<Self> {
        let component = match pod.labels().get("app.kubernetes.io/component")?.as_str() {
            "coordinator" => Component::Coordinator,
            "datanode" => Component::Datanode,
            _ => return None,
        };
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
        let port = ports.find(|port| port.name.as_deref() == Some(GRPC))?.container_port;
        let status = pod.status.as_ref();
        let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
        Some(Self {
            name: pod.name_any(),
            component,
            ip: status.and_then(|status| status.pod_ip.clone()),
            grpc_port: u16::try_from(port).ok()?,
            phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
            is_ready: is_ready && pod.metadata.deletion_timestamp.is_none(),
        })
    }

    /// Returns its address by name.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.name, self.grpc_port)
    }

    /// Returns true if its address or DNS name is `host`.
    fn is_at(&self, host: &str, namespace: &str) -> bool {
        if self.ip.as_deref() == Some(host.trim_matches(['[', ']'])) {
            return true;
        }
        let mut labels = host.split('.');
        // POD.SERVICE.NAMESPACE.svc…, or the name alone.
        labels.next() == Some(&self.name) && labels.nth(1).is_none_or(|label| label == namespace)
    }
}

/// The pods of one cluster, as last listed. Clones share the list.
#[derive(Clone)]
pub(crate) struct Pods(Arc<Shared>);

struct Shared {
    asker: Asker,
    client: Client,
    namespace: String,
    cluster: String,
    known: Mutex<Known>,
    /// Held by the list in progress, of which there is one at a time.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    pods: Arc<[Pod]>,
    looked_at: Option<Instant>,
}

impl Pods {
    pub(crate) fn new(asker: Asker, client: Client, namespace: String, cluster: String) -> Self {
        let (known, looking) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Shared { asker, client, namespace, cluster, known, looking }))
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.0.namespace
    }

    pub(crate) fn api(&self) -> Api<KubePod> {
        Api::namespaced(self.0.client.clone(), &self.0.namespace)
    }

    /// Returns the name of the coordinators' Service, with an arbitrary port.
    pub(crate) fn coordinators(&self) -> String {
        format!("{}-coordinator.{}.svc:7070", self.0.cluster, self.0.namespace)
    }

    /// Returns all pods, as listed recently.
    pub(crate) async fn current(&self) -> Result<Arc<[Pod]>, Error> {
        self.not_older_than(FRESH).await
    }

    /// Returns all pods, listed now.
    pub(crate) async fn refreshed(&self) -> Result<Arc<[Pod]>, Error> {
        self.not_older_than(LOOK_MIN).await
    }

    /// Returns the pod at `host`; lists again if none is known.
    pub(crate) async fn at(&self, host: &str) -> Result<Option<Pod>, Error> {
        let find =
            |pods: &[Pod]| pods.iter().find(|pod| pod.is_at(host, self.namespace())).cloned();
        match find(&self.current().await?) {
            Some(pod) if pod.phase == "Running" => Ok(Some(pod)),
            _ => Ok(find(&self.refreshed().await?)),
        }
    }

    async fn not_older_than(&self, age: Duration) -> Result<Arc<[Pod]>, Error> {
        if let Some(pods) = self.known(age) {
            return Ok(pods);
        }
        let _only = self.0.looking.lock().await;
        // Another task may have listed meanwhile.
        if let Some(pods) = self.known(age) {
            return Ok(pods);
        }
        let pods: Arc<[Pod]> = self.look().await?.into();
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Known { pods: pods.clone(), looked_at: Some(Instant::now()) };
        Ok(pods)
    }

    fn known(&self, age: Duration) -> Option<Arc<[Pod]>> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.looked_at.filter(|at| at.elapsed() < age).map(|_| known.pods.clone())
    }

    async fn look(&self) -> Result<Vec<Pod>, Error> {
        let Shared { asker, cluster, .. } = &*self.0;
        let labels = format!("app.kubernetes.io/name=dfs,app.kubernetes.io/instance={cluster}");
        let mut params = ListParams::default().labels(&labels).limit(PAGE);
        let mut pods = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = asker.ask("the pods of the cluster", self.api().list(&params)).await?;
            pods.extend(page.items.iter().filter_map(Pod::of));
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params.continue_token = Some(next),
                None => break,
            }
        }
        Ok(pods)
    }
}

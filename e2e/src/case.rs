//! One case: its namespace and contents, and what is kept when it fails.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::artifacts;
use crate::cluster::Cluster;
use crate::environment::Environment;
use crate::nodes::Nodes;
use crate::operator::{Operator, define};
use crate::wait::until;

/// Time limit of a case.
const LIMIT: Duration = Duration::from_mins(30);

/// Directory of the DfsCluster definition in the repository.
const DEFINITION: &str = "crds";

/// Resources of a case.
pub struct Case {
    /// The Kubernetes cluster it runs on.
    pub env: Environment,
    /// Its own namespace.
    pub namespace: String,
    namespaces: Mutex<Vec<String>>,
    operators: Mutex<Vec<Operator>>,
    nodes: Nodes,
    start: Instant,
}

/// Runs a case. In any event, nodes are up again afterwards, the definition is that of this tree,
/// and namespaces are deleted, unless those of failed cases are to be kept.
pub async fn case<F>(name: &str, body: F) -> Result<()>
where
    F: AsyncFnOnce(&Case) -> Result<()>,
{
    let case = Case::new(name).await.context("the case cannot start")?;
    let run = AssertUnwindSafe(tokio::time::timeout(LIMIT, body(&case))).catch_unwind();
    let failure = match run.await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(error),
        Ok(Err(_)) => Some(anyhow!("it took more than {LIMIT:?}")),
        Err(panic) => Some(anyhow!(panic_text(&*panic))),
    };
    if failure.is_some() {
        let folder = case.env.artifacts.join(name);
        match artifacts::collect(&case.env, &case.namespaces().await, &folder).await {
            Ok(()) => eprintln!("{name}: diagnostics are in {}", folder.display()),
            Err(error) => eprintln!("{name}: no diagnostics: {error:#}"),
        }
    }
    let healed = case.nodes.restore().await.and(case.renew_definition().await);
    let cleaned = if failure.is_some() && case.env.is_kept_on_failure {
        eprintln!("{name}: kept {}", case.namespaces().await.join(", "));
        Ok(())
    } else {
        case.clean_up().await
    };
    eprintln!("{name}: {:.0} s", case.start.elapsed().as_secs_f64());
    match failure {
        Some(failure) => Err(failure),
        None => healed.and(cleaned).context("the case left something behind"),
    }
}

impl Case {
    async fn new(name: &str) -> Result<Self> {
        let env = Environment::from_env().await?;
        define(&env, DEFINITION).await?;
        let case = Self {
            nodes: Nodes::new(env.clone()),
            env,
            namespace: String::new(),
            namespaces: Mutex::default(),
            operators: Mutex::default(),
            start: Instant::now(),
        };
        let namespace = case.make_namespace(name).await?;
        Ok(Self { namespace, ..case })
    }

    /// Creates another namespace that is deleted with the case.
    pub async fn make_namespace(&self, name: &str) -> Result<String> {
        let namespace = serde_json::from_value(json!({
            "metadata": {
                "generateName": format!("e2e-{}-", name.replace('_', "-")),
                "labels": {
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "pod-security.kubernetes.io/warn": "restricted",
                    "dfs.test/e2e": "true",
                },
            },
        }))?;
        let api: Api<Namespace> = Api::all(self.env.client.clone());
        let made = api.create(&PostParams::default(), &namespace).await?.name_any();
        self.namespaces.lock().await.push(made.clone());
        Ok(made)
    }

    /// Installs an operator that serves only the namespace of the case.
    pub async fn operator(&self) -> Result<Operator> {
        self.operator_with(&[]).await
    }

    /// Like [`Case::operator`], with other values of the chart, `key=value` each.
    pub async fn operator_with(&self, values: &[&str]) -> Result<Operator> {
        let own = format!("watchNamespaces={{{}}}", self.namespace);
        let values = [&[own.as_str(), "crds.install=false"], values].concat();
        self.install(&self.namespace, &values).await
    }

    /// Installs the chart into a namespace; it is uninstalled with the case.
    pub async fn install(&self, namespace: &str, values: &[&str]) -> Result<Operator> {
        let operator = Operator::new(&self.env, namespace, "dfs");
        // Noted before, as a failed install leaves something behind too.
        self.operators.lock().await.push(operator.clone());
        operator.upgrade(values).await.context("helm cannot install the chart")?;
        Ok(operator)
    }

    /// Replaces an older definition by that of this tree.
    pub async fn renew_definition(&self) -> Result<()> {
        define(&self.env, DEFINITION).await
    }

    /// Replaces the definition of this tree by the one that users have, for this case.
    pub async fn freeze_definition(&self) -> Result<()> {
        define(&self.env, "crates/dfs-crd/tests/frozen").await
    }

    /// Returns a DfsCluster in the namespace of the case.
    pub fn cluster(&self, name: &str) -> Cluster {
        Cluster::new(&self.env, &self.namespace, name)
    }

    /// Returns control of the nodes; changes are undone after the case.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    async fn namespaces(&self) -> Vec<String> {
        self.namespaces.lock().await.clone()
    }

    /// Clusters first, while their operator can still remove their finalizers.
    async fn clean_up(&self) -> Result<()> {
        let namespaces = self.namespaces().await;
        for namespace in &namespaces {
            Cluster::delete_all(&self.env, namespace).await?;
        }
        for operator in self.operators.lock().await.iter() {
            operator.uninstall().await?;
        }
        let api: Api<Namespace> = Api::all(self.env.client.clone());
        for namespace in &namespaces {
            match api.delete(namespace, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => drop(result?),
            }
        }
        for namespace in &namespaces {
            let gone = format!("the end of namespace {namespace}");
            let limit = Duration::from_mins(2);
            until(&gone, limit, async || Ok(api.get_opt(namespace).await?.is_none().then_some(())))
                .await?;
        }
        Ok(())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}

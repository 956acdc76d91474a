//! One reconciliation of one cluster: observe, decide, apply, publish.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dfs_crd::{ConditionType, DfsCluster, Phase, Reason};
use dfs_types::{OsRandom, Random as _, with_causes};
use futures_util::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use kube::{Api, Client, Resource as _};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use crate::apply::{ApplyError, apply};
use crate::backoff::Backoff;
use crate::coordinator::Coordinator;
use crate::decide::{self, Case, decide};
use crate::definition::Known;
use crate::metrics::OperatorMetrics;
use crate::observe::{ObserveError, observe};
use crate::status::{is_true, status};
use crate::{FIELD_MANAGER, publish};

/// Time limit of one reconciliation.
const DEADLINE: Duration = Duration::from_mins(1);
/// Delay of the next one while a cluster is being created: joining nodes cannot be watched.
const WHILE_CREATING: Duration = Duration::from_secs(3);
/// Delay of the next one while something is in progress.
const WHILE_BUSY: Duration = Duration::from_secs(10);
/// Delay of the next one otherwise, which bounds the age of numbers in the status.
const WHILE_STEADY: Duration = Duration::from_secs(50);

/// State shared by all reconciliations.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) recorder: Recorder,
    /// Namespace of the operator, if in Kubernetes.
    pub(crate) operator_namespace: Option<String>,
    pub(crate) metrics: OperatorMetrics,
    pub(crate) backoff: Backoff<(String, String)>,
    pub(crate) definition: Known,
}

/// A reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Reading failed.
    #[error("cannot observe the cluster")]
    Observe(#[from] ObserveError),
    /// Carrying out failed.
    #[error("cannot carry out what was decided")]
    Apply(#[from] ApplyError),
    /// Publishing failed.
    #[error("cannot publish the status")]
    Publish(#[source] kube::Error),
    /// The time limit was exceeded.
    #[error("not done after {} s", DEADLINE.as_secs())]
    Timeout,
    /// A bug.
    #[error("a bug in the operator: {0}")]
    Panic(String),
}

impl Error {
    fn reason(&self) -> &'static str {
        match self {
            Self::Observe(_) | Self::Timeout => "observe",
            Self::Apply(ApplyError::Call(_)) => "coordinator",
            Self::Apply(_) => "api",
            Self::Publish(_) => "publish",
            Self::Panic(_) => "panic",
        }
    }
}

/// Reconciles a cluster. No failure, not even a panic, affects another cluster.
pub(crate) async fn reconcile(
    cluster: Arc<DeserializeGuard<DfsCluster>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let namespace = cluster.meta().namespace.clone().unwrap_or_default();
    let name = cluster.meta().name.clone().unwrap_or_default();
    context.metrics.begun(&namespace, &name);
    let span = tracing::info_span!(
        "reconcile",
        namespace,
        name,
        generation = cluster.meta().generation,
        reconcile_id = format!("{:08x}", OsRandom.below(1 << 32)),
    );
    let started = Instant::now();
    let look = async {
        match &cluster.0 {
            Ok(_) => Box::pin(reconcile_once(&namespace, &name, &context)).await,
            Err(invalid) => Box::pin(report_invalid(&namespace, &name, invalid, &context)).await,
        }
    };
    let looked = timeout(DEADLINE, AssertUnwindSafe(look).catch_unwind()).instrument(span.clone());
    let result = match looked.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(Error::Panic(panic_message(panic.as_ref()))),
        Err(_) => Err(Error::Timeout),
    };
    match &result {
        Ok(_) => context.metrics.succeeded(started.elapsed()),
        Err(error) => context.metrics.failed(error.reason()),
    }
    result
}

/// Returns when to reconcile again after a failure. A repeated failure is logged once.
#[expect(clippy::needless_pass_by_value, reason = "the controller calls it so")]
pub(crate) fn failed(
    cluster: Arc<DeserializeGuard<DfsCluster>>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    let namespace = cluster.meta().namespace.clone().unwrap_or_default();
    let name = cluster.meta().name.clone().unwrap_or_default();
    let message = with_causes(error);
    let verdict = context.backoff.failed((namespace.clone(), name.clone()), &message, &OsRandom);
    if verdict.is_news {
        tracing::warn!(namespace, name, error = message, "reconcile failed; retrying");
    }
    Action::requeue(verdict.after)
}

async fn reconcile_once(namespace: &str, name: &str, context: &Context) -> Result<Action, Error> {
    let Context { client, coordinator, recorder, operator_namespace, metrics, backoff, .. } =
        context;
    let key = (namespace.to_owned(), name.to_owned());
    let home = operator_namespace.as_deref();
    let observed = observe(client, coordinator.as_ref(), home, namespace, name).await?;
    let Some(mut seen) = observed else {
        metrics.forget(namespace, name);
        backoff.clear(&key);
        return Ok(Action::await_change());
    };
    seen.definition = context.definition.get();
    let decision = decide(&seen);
    for action in &decision.actions {
        tracing::info!(action = %label(action), "decided");
    }
    let (outcome, done, error) =
        apply(client, coordinator.as_ref(), &seen, &decision.actions).await;
    let is_deleted = seen.cluster.metadata.deletion_timestamp.is_some();
    if is_deleted && done.contains(&decide::Action::RemoveFinalizer) {
        metrics.forget(namespace, name);
        backoff.clear(&key);
        return Ok(Action::await_change());
    }
    let status = status(&seen, &decision, &outcome);
    let published = publish::status(client, &seen, &status).await.map_err(Error::Publish);
    if published.is_ok() {
        publish::events(recorder, &seen, &done, &status).await;
    }
    metrics.show(namespace, name, &status);
    if let Some(error) = error {
        return Err(error.into());
    }
    published?;
    backoff.clear(&key);
    let is_creating = status.phase == Some(Phase::Creating);
    let is_ready = is_true(&status.conditions, ConditionType::Ready);
    Ok(match decision.case {
        // Only an edit can help.
        Case::Blocked if decision.invalid.is_some() => Action::await_change(),
        Case::Blocked | Case::Paused => requeue(WHILE_STEADY),
        _ if is_creating => requeue(WHILE_CREATING),
        Case::Stopped if !decision.is_busy() => requeue(WHILE_STEADY),
        _ if decision.is_busy() || !is_ready => requeue(WHILE_BUSY),
        _ => requeue(WHILE_STEADY),
    })
}

/// Reports an object that cannot be parsed: it was created by hand against an older definition of
/// the resource, or by a newer operator.
async fn report_invalid(
    namespace: &str,
    name: &str,
    invalid: &InvalidObject,
    context: &Context,
) -> Result<Action, Error> {
    let key = (namespace.to_owned(), name.to_owned());
    let generation = invalid.metadata.generation;
    let message = format!("generation {generation:?}: {}", invalid.error);
    if !context.backoff.failed(key, &message, &OsRandom).is_news {
        return Ok(Action::await_change());
    }
    tracing::warn!(error = invalid.error, "the object cannot be parsed");
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let condition = |kind: ConditionType, status: &str| {
        json!({
            "type": kind.as_str(),
            "status": status,
            "reason": Reason::VersionUnsupported.as_str(),
            "message": format!("the object cannot be parsed: {}", invalid.error),
            "lastTransitionTime": now.to_string(),
            "observedGeneration": generation,
        })
    };
    let patch = json!({
        "apiVersion": DfsCluster::api_version(&()),
        "kind": DfsCluster::kind(&()),
        "status": {
            "observedGeneration": generation,
            "phase": Phase::Stalled,
            "conditions": [
                condition(ConditionType::Ready, "False"),
                condition(ConditionType::SpecValid, "False"),
                condition(ConditionType::Stalled, "True"),
            ],
        },
    });
    // Merged, not applied: the rest of the status stays.
    let params =
        PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api: Api<DeserializeGuard<DfsCluster>> = Api::namespaced(context.client.clone(), namespace);
    api.patch_status(name, &params, &Patch::Merge(patch)).await.map_err(Error::Publish)?;
    Ok(Action::await_change())
}

/// The description of an action in a log line.
fn label(action: &decide::Action) -> String {
    use decide::Action as A;
    match action {
        A::AddFinalizer => "add the finalizer".to_owned(),
        A::RemoveFinalizer => "remove the finalizer".to_owned(),
        A::CreateJoinSecret => "create the join Secret".to_owned(),
        A::Apply { object, .. } => format!("apply {} {}", object.kind.name(), object.name),
        A::Delete(target) => format!("delete {target}"),
        A::Init(id) => format!("init cluster {id}"),
        A::SetReplication(_) => "set the replication".to_owned(),
        A::Admit { pod, node, .. } => format!("admit node {node} of pod {pod}"),
        A::BeginMaintenance { pod, node, .. } => {
            format!("begin maintenance of {node} of pod {pod}")
        }
        A::EndMaintenance { pod, node, .. } => format!("end maintenance of {node} of pod {pod}"),
        A::RestartPod(target) => format!("restart {target}"),
    }
}

/// Returns a requeue within a tenth of `duration`, so that clusters are not all reconciled at once.
fn requeue(duration: Duration) -> Action {
    let tenth = duration.as_millis() as u64 / 10;
    let off = Duration::from_millis(OsRandom.below(2 * tenth + 1));
    Action::requeue(duration.saturating_sub(Duration::from_millis(tenth)) + off)
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown reason".to_owned())
}

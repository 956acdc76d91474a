//! Publishes the status to the API server, and events for people. Unchanged ones are not repeated.

use dfs_crd::{ClusterStatus, ConditionType, DfsCluster, Reason};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;

use crate::FIELD_MANAGER;
use crate::decide::Action;
use crate::observed::Observed;
use crate::status::is_true;

/// Maximum length of the note of an event in bytes.
const NOTE_LEN_MAX: usize = 1_000;

/// Writes the status unless it is unchanged. Returns whether it wrote.
pub async fn status(
    client: &Client,
    seen: &Observed,
    status: &ClusterStatus,
) -> kube::Result<bool> {
    let cluster = &seen.cluster;
    if cluster.status.as_ref() == Some(status) {
        return Ok(false);
    }
    let api: Api<DfsCluster> =
        Api::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": DfsCluster::api_version(&()),
        "kind": DfsCluster::kind(&()),
        // This status does not belong to a resource recreated under the same name.
        "metadata": {"uid": cluster.metadata.uid},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&cluster.name_any(), &params, &Patch::Apply(patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Records actions and changes as events. One that cannot be recorded is logged: events must not
/// delay anything.
pub async fn events(recorder: &Recorder, seen: &Observed, done: &[Action], after: &ClusterStatus) {
    let reference = seen.cluster.object_ref(&());
    let happened = done.iter().filter_map(|action| of_action(action, seen));
    for event in happened.chain(of_status(seen.cluster.status.as_ref(), after)) {
        if let Err(error) = recorder.publish(&event, &reference).await {
            tracing::warn!(%error, reason = event.reason, "cannot record an event");
        }
    }
}

fn of_action(action: &Action, seen: &Observed) -> Option<Event> {
    let (reason, note, pod) = match action {
        Action::CreateJoinSecret => ("Creating", "the cluster is being created".to_owned(), None),
        Action::Init(id) => ("Initialised", format!("created cluster {id}"), None),
        Action::SetReplication(_) => {
            let factor = seen.cluster.spec.replication_factor;
            (
                "ReplicationSet",
                format!("files get {factor} replicas, existing ones in the background"),
                None,
            )
        }
        Action::Admit { pod, .. } => {
            ("DatanodeAdmitted", format!("datanode {pod} is admitted"), Some(pod))
        }
        Action::RestartPod(target) => {
            ("DatanodeRestarting", format!("pod {} is restarted", target.name), Some(&target.name))
        }
        Action::EndMaintenance { pod, .. } => {
            ("DatanodeRestarted", format!("datanode {pod} is back"), Some(pod))
        }
        Action::Delete(target) => ("ObjectDeleted", format!("deleted {target}"), None),
        Action::AddFinalizer
        | Action::RemoveFinalizer
        | Action::Apply { .. }
        | Action::BeginMaintenance { .. } => return None,
    };
    let secondary = pod.and_then(|name| related(name, seen));
    Some(event(EventType::Normal, reason, "Reconcile", &note, secondary))
}

/// Returns the pod that an event is about.
fn related(name: &str, seen: &Observed) -> Option<ObjectReference> {
    let pod = seen.pods.iter().find(|pod| pod.name_any() == name)?;
    Some(pod.object_ref(&()))
}

/// Returns events for conditions whose status or reason changed.
fn of_status(before: Option<&ClusterStatus>, after: &ClusterStatus) -> Vec<Event> {
    let reported = [
        (ConditionType::Ready, "True", EventType::Normal),
        (ConditionType::Stalled, "True", EventType::Warning),
        (ConditionType::Degraded, "True", EventType::Warning),
        (ConditionType::SpecValid, "False", EventType::Warning),
        (ConditionType::DeletionBlocked, "True", EventType::Warning),
        (ConditionType::Upgrading, "True", EventType::Normal),
        (ConditionType::Upgrading, "False", EventType::Normal),
        (ConditionType::Paused, "True", EventType::Normal),
    ];
    let mut events = Vec::new();
    for (kind, status, severity) in reported {
        let of = |status: &ClusterStatus| {
            status.conditions.iter().find(|there| there.type_ == kind.as_str()).cloned()
        };
        let (before, after) = (before.and_then(of), of(after));
        let Some(after) = after.filter(|after| after.status == status) else { continue };
        let is_news = match &before {
            Some(before) if before.status == status => {
                severity == EventType::Warning && before.reason != after.reason
            }
            Some(_) => true,
            // A cluster that was never reconciled has not finished an upgrade.
            None => status == "True" || severity == EventType::Warning,
        };
        // A stalled spec is reported once.
        if is_news && !events.iter().any(|event: &Event| event.reason == after.reason) {
            let note =
                if after.message.is_empty() { meaning(&after.reason) } else { &after.message };
            events.push(event(severity, &after.reason, kind.as_str(), note, None));
        }
    }
    events
}

fn meaning(reason: &str) -> &'static str {
    let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
    known.map_or("", |reason| reason.meaning())
}

fn event(
    type_: EventType,
    reason: &str,
    action: &str,
    note: &str,
    secondary: Option<ObjectReference>,
) -> Event {
    let note = note[..note.floor_char_boundary(NOTE_LEN_MAX)].to_owned();
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary,
    }
}

/// Returns whether a status reports a healthy cluster.
pub fn is_settled(status: &ClusterStatus) -> bool {
    is_true(&status.conditions, ConditionType::Ready)
        && !is_true(&status.conditions, ConditionType::Reconciling)
}

//! Carries out decisions.

use dfs_client::{Maintenance, Replication};
use dfs_crd::{DfsCluster, DfsClusterSpec, FINALIZER, Reason};
use dfs_types::{ClusterId, OsRandom, Random as _};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::FIELD_MANAGER;
use crate::build;
use crate::coordinator::{CallError, Coordinator};
use crate::decide::{Action, Finding, taken};
use crate::kind::{Object, Target};
use crate::observed::{Observed, Owner};
use crate::status::Outcome;

/// Length of a new join secret in bytes, before hexadecimal encoding.
const JOIN_SECRET_LEN: usize = 32;

/// An action failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused, or did not reply.
    #[error("cannot {verb} {what}")]
    Api {
        /// The operation.
        verb: &'static str,
        /// Its object.
        what: String,
        /// The error.
        #[source]
        source: kube::Error,
    },
    /// The coordinators refused, or did not reply.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The name of an object is taken by another owner.
    #[error("{}", .0.message)]
    Taken(Finding),
}

impl ApplyError {
    /// Returns the finding to publish, if a person must act.
    pub fn finding(&self) -> Option<Finding> {
        match self {
            Self::Api { source: kube::Error::Api(status), .. }
                if matches!(status.code, 400 | 403 | 422) =>
            {
                Some(Finding::new(Reason::ApplyRefused, format!("{self}: {}", status.message)))
            }
            Self::Taken(finding) => Some(finding.clone()),
            Self::Api { .. } | Self::Call(_) => None,
        }
    }
}

/// Carries out actions in order, up to the first failure. Returns the completed ones.
pub async fn apply(
    client: &Client,
    coordinator: &dyn Coordinator,
    seen: &Observed,
    actions: &[Action],
) -> (Outcome, Vec<Action>, Option<ApplyError>) {
    let applier = Applier { client, coordinator, seen };
    let (mut outcome, mut done) = (Outcome::default(), Vec::new());
    for action in actions {
        match applier.one(action, &mut outcome).await {
            Ok(()) => done.push(action.clone()),
            Err(error) => {
                outcome.failed = error.finding();
                return (outcome, done, Some(error));
            }
        }
    }
    (outcome, done, None)
}

/// Returns the replication that a spec asks for.
fn replication(spec: &DfsClusterSpec) -> Replication {
    let replication = Replication::new(spec.replication_factor.unsigned_abs());
    match spec.min_write_replicas {
        Some(replicas) => replication.min_write(replicas.unsigned_abs()),
        None => replication,
    }
}

struct Applier<'a> {
    client: &'a Client,
    coordinator: &'a dyn Coordinator,
    seen: &'a Observed,
}

impl Applier<'_> {
    async fn one(&self, action: &Action, outcome: &mut Outcome) -> Result<(), ApplyError> {
        let (at, spec) = (self.seen.coordinators(), &self.seen.cluster.spec);
        match action {
            Action::AddFinalizer => self.add_finalizer().await,
            Action::RemoveFinalizer => self.remove_finalizer().await,
            Action::CreateJoinSecret => self.create_join_secret().await,
            Action::Apply { object, is_there } => self.apply(object, *is_there).await,
            Action::Delete(target) | Action::RestartPod(target) => self.delete(target).await,
            Action::Init(id) => {
                self.coordinator.init(&at, *id, replication(spec)).await?;
                outcome.initialised = Some(*id);
                Ok(())
            }
            Action::SetReplication(id) => {
                Ok(self.coordinator.set_replication(&at, *id, replication(spec)).await?)
            }
            Action::Admit { cluster, node, .. } => {
                Ok(self.coordinator.admit(&at, *cluster, *node).await?)
            }
            Action::BeginMaintenance { cluster, node, ttl, .. } => {
                match self.coordinator.begin_maintenance(&at, *cluster, *node, *ttl).await? {
                    Maintenance::Granted => {}
                    // The next round asks again.
                    Maintenance::Refused(safety) if safety.is_pending => {}
                    Maintenance::Refused(safety) => outcome.refused = Some(safety.reason),
                }
                Ok(())
            }
            Action::EndMaintenance { cluster, node, .. } => {
                Ok(self.coordinator.end_maintenance(&at, *cluster, *node).await?)
            }
        }
    }

    fn namespace(&self) -> String {
        self.seen.cluster.namespace().unwrap_or_default()
    }

    fn api(&self, kind: crate::kind::Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace(), &kind.resource())
    }

    async fn apply(&self, object: &Object, is_there: bool) -> Result<(), ApplyError> {
        let api = self.api(object.kind);
        let what = || format!("{} {}", object.kind.name(), object.name);
        if !is_there {
            // An object without our labels was not observed. It may belong to someone else.
            let read = api.get_opt(&object.name).await;
            let there = read.map_err(|source| failed("read", what(), source))?;
            match there.map(|there| Owner::of(&there.metadata, &self.seen.cluster)) {
                None | Some(Owner::Ours) => {}
                Some(Owner::Former | Owner::Nobody) => {
                    return Err(ApplyError::Taken(taken(&what(), "nobody")));
                }
                Some(Owner::Other(owner)) => return Err(ApplyError::Taken(taken(&what(), &owner))),
            }
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(&object.name, &params, &Patch::Apply(&object.value)).await;
        applied.map(drop).map_err(|source| failed("apply", what(), source))
    }

    /// Deletes this object, by uid; a later one of the same name stays. Idempotent.
    async fn delete(&self, target: &Target) -> Result<(), ApplyError> {
        let params = DeleteParams::background()
            .preconditions(Preconditions { uid: Some(target.uid.clone()), resource_version: None });
        match self.api(target.kind).delete(&target.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(source) => Err(failed("delete", target.to_string(), source)),
        }
    }

    async fn create_join_secret(&self) -> Result<(), ApplyError> {
        let mut bytes = [0; JOIN_SECRET_LEN];
        OsRandom.fill(&mut bytes);
        let text = bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let secret = build::join_secret(&self.seen.cluster, ClusterId::random(&OsRandom), &text);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace());
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&params, &secret).await {
            Ok(_) => Ok(()),
            // An existing one is never changed; the next observation sees it.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(source) => Err(failed("create", format!("Secret {}", secret.name_any()), source)),
        }
    }

    async fn add_finalizer(&self) -> Result<(), ApplyError> {
        let cluster = &self.seen.cluster;
        let finalizers: Vec<&str> =
            cluster.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        // The resource version ensures that no finalizer added meanwhile is lost.
        let patch = json!({"metadata": {
            "resourceVersion": cluster.metadata.resource_version,
            "finalizers": finalizers,
        }});
        self.patch_cluster(&Patch::Merge(patch)).await
    }

    async fn remove_finalizer(&self) -> Result<(), ApplyError> {
        let cluster = &self.seen.cluster;
        let finalizers: Vec<&String> =
            cluster.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let patch = json!({"metadata": {
            "resourceVersion": cluster.metadata.resource_version,
            "finalizers": finalizers,
        }});
        self.patch_cluster(&Patch::Merge(patch)).await
    }

    async fn patch_cluster(&self, patch: &Patch<serde_json::Value>) -> Result<(), ApplyError> {
        let api: Api<DfsCluster> = Api::namespaced(self.client.clone(), &self.namespace());
        let name = self.seen.cluster.name_any();
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patched = api.patch(&name, &params, patch).await;
        patched.map(drop).map_err(|source| {
            failed("change the finalizers of", format!("DfsCluster {name}"), source)
        })
    }
}

fn failed(verb: &'static str, what: String, source: kube::Error) -> ApplyError {
    ApplyError::Api { verb, what, source }
}

//! The service `Admin`.

use std::sync::Arc;
use std::time::Duration;

use dfs_metadata::namespace::{ClusterState, Replication};
use dfs_proto::v1::admin_server::Admin;
use dfs_proto::wire::WireId;
use dfs_proto::{Failure, FieldError, v1};
use dfs_transport::Action;
use dfs_types::{ErrorCode, NodeState, Revision};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use super::holder;
use super::upload::replication_factor;
use crate::core::{Core, allow, location, unknown_location, wire_state};
use crate::failure;
use crate::registry::View;

/// How long a caller who names a revision waits for it.
const REVISION_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked for.
const REVISION_POLL: Duration = Duration::from_millis(50);
/// How long it is waited for repair to have seen the latest changes.
const TALLY_WAIT: Duration = Duration::from_millis(500);
/// How often it is looked whether it has.
const TALLY_POLL: Duration = Duration::from_millis(10);

pub(super) struct Handler(pub(super) Arc<Core>);

#[tonic::async_trait]
impl Admin for Handler {
    async fn cluster_status(
        &self,
        request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        Ok(Response::new(cluster_status(&self.0, request.into_inner()).await?))
    }

    async fn set_replication(
        &self,
        request: Request<v1::SetReplicationRequest>,
    ) -> Result<Response<v1::SetReplicationResponse>, Status> {
        Ok(Response::new(set_replication(&self.0, request.into_inner()).await?))
    }

    async fn init(
        &self,
        _request: Request<v1::InitRequest>,
    ) -> Result<Response<v1::InitResponse>, Status> {
        Err(Status::unimplemented("Init"))
    }

    async fn admit(
        &self,
        _request: Request<v1::AdmitRequest>,
    ) -> Result<Response<v1::AdmitResponse>, Status> {
        Err(Status::unimplemented("Admit"))
    }

    async fn safe_to_stop(
        &self,
        _request: Request<v1::SafeToStopRequest>,
    ) -> Result<Response<v1::SafeToStopResponse>, Status> {
        Err(Status::unimplemented("SafeToStop"))
    }

    async fn maintenance(
        &self,
        _request: Request<v1::MaintenanceRequest>,
    ) -> Result<Response<v1::MaintenanceResponse>, Status> {
        Err(Status::unimplemented("Maintenance"))
    }

    async fn deregister(
        &self,
        _request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        Err(Status::unimplemented("Deregister"))
    }

    async fn forget(
        &self,
        _request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetResponse>, Status> {
        Err(Status::unimplemented("Forget"))
    }
}

async fn set_replication(
    core: &Core,
    request: v1::SetReplicationRequest,
) -> Result<v1::SetReplicationResponse, Failure> {
    allow(Action::Administer, None)?;
    let factor = replication_factor("replication_factor", request.replication_factor)?;
    let min_write = request
        .min_write_replicas
        .map(|copies| replication_factor("min_write_replicas", copies))
        .transpose()?;
    if min_write.is_some_and(|min| min > factor) {
        let what = format_args!("at most the replication factor ({factor}) is possible");
        return Err(FieldError::new("min_write_replicas", what).into());
    }
    let revision = core.namespace.set_replication(Replication { factor, min_write }).await;
    let revision = revision.map_err(|error| failure::of(&error))?;
    Ok(v1::SetReplicationResponse { revision: revision.0 })
}

async fn cluster_status(
    core: &Core,
    request: v1::ClusterStatusRequest,
) -> Result<v1::ClusterStatusResponse, Failure> {
    allow(Action::Read, None)?;
    let state = state_since(core, request.min_revision).await?;
    core.take_members(&state.nodes);
    let least = core.namespace.chunks_changed_at().max(Revision(request.min_revision));
    let identity = core.namespace.identity();
    let work = match background_work(core, &state, least).await {
        work if !work.lease_holder.is_empty() || request.is_relayed => work,
        // The workers run elsewhere, and with them what is known of the chunks.
        work => holder::ask(core, least).await.unwrap_or(work),
    };
    let now = Instant::now();
    let nodes = {
        let registry = core.registry();
        state
            .nodes
            .iter()
            .filter(|(_, stored)| stored.state != NodeState::Removed)
            .map(|(node, stored)| {
                registry.view(*node, now).map_or_else(
                    || v1::NodeStatus {
                        // Registered, but its first heartbeat has not come yet.
                        node: Some(v1::NodeLocation {
                            address: stored.address.clone(),
                            zone: stored.zone.clone(),
                            host: stored.host.clone(),
                            state: wire_state(NodeState::Joining),
                            ..unknown_location(*node)
                        }),
                        version: stored.version.clone(),
                        ..v1::NodeStatus::default()
                    },
                    |view| node_status(&view),
                )
            })
            .collect()
    };
    let replication = state.replication;
    Ok(v1::ClusterStatusResponse {
        cluster_id: identity.cluster.to_wire(),
        incarnation: identity.incarnation.0,
        revision: state.revision.0,
        replication_factor: replication.factor.into(),
        min_write_replicas: replication.min_write_for(replication.factor).into(),
        nodes,
        replication: Some(work.replication),
        workers: work.workers,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        worker_lease_holder: work.lease_holder,
    })
}

/// What the holder of the worker lease knows, and nobody else.
pub(super) struct BackgroundWork {
    pub(super) replication: v1::ReplicationStatus,
    pub(super) workers: Vec<v1::WorkerStatus>,
    /// Empty when that is not this coordinator, or not known.
    pub(super) lease_holder: String,
}

/// The background work as it is here.
async fn background_work(core: &Core, state: &ClusterState, least: Revision) -> BackgroundWork {
    let replication = replication_status(core, state, least).await;
    let workers = core.background.workers().map(|progress| v1::WorkerStatus {
        name: progress.name().to_owned(),
        state: progress.state(),
        done: progress.done(),
        failed: progress.failed(),
        queued: progress.queued(),
    });
    let (workers, lease_holder) = (workers.collect(), core.background.lease_holder());
    BackgroundWork { replication, workers, lease_holder }
}

/// The cluster at a revision that is not older than the one asked for.
async fn state_since(core: &Core, min_revision: u64) -> Result<ClusterState, Failure> {
    let deadline = Instant::now() + REVISION_WAIT;
    loop {
        let state = core.namespace.cluster_state().await.map_err(|error| failure::of(&error))?;
        if state.revision.0 >= min_revision {
            return Ok(state);
        }
        if Instant::now() >= deadline {
            let message = format!(
                "the metadata is at revision {}, {min_revision} was asked for; try again later",
                state.revision
            );
            return Err(Failure::new(ErrorCode::Unavailable, message).retry_after(REVISION_WAIT));
        }
        sleep(REVISION_POLL).await;
    }
}

fn node_status(view: &View) -> v1::NodeStatus {
    v1::NodeStatus {
        node: Some(location(view)),
        disks: view
            .disks
            .iter()
            .map(|disk| v1::Disk {
                disk_id: disk.disk.to_wire(),
                capacity: disk.capacity,
                free: disk.free,
                chunks: disk.chunks,
                is_failed: disk.is_failed,
            })
            .collect(),
        last_heard_ms: view.last_heard.map(|ago| ago.as_millis() as u64),
        version: view.member.version.clone(),
        refuses_chunks: view.refuses_chunks(),
        sessions: view.sessions,
        maintenance_left_ms: None,
    }
}

/// How the chunks are, with all that happened to them up to `least`. Repair follows the changes
/// within moments, which is waited for.
async fn replication_status(
    core: &Core,
    state: &ClusterState,
    least: Revision,
) -> v1::ReplicationStatus {
    let deadline = Instant::now() + TALLY_WAIT;
    let (tally, repairing) = loop {
        let now = Instant::now();
        let lost = core.registry().lost(now);
        if let Some(known) = core.background.tally(&lost, least) {
            break known;
        }
        if now >= deadline || core.background.lease.grant().is_none() {
            let revision = state.revision.0;
            return v1::ReplicationStatus { revision, ..v1::ReplicationStatus::default() };
        }
        sleep(TALLY_POLL).await;
    };
    v1::ReplicationStatus {
        is_known: true,
        chunks: tally.chunks,
        under_replicated: tally.under_replicated,
        missing: tally.missing,
        bad_copies: tally.bad_copies,
        repairing,
        revision: state.revision.0,
    }
}

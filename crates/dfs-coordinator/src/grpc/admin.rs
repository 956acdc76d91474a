//! The service `Admin`.

use std::sync::Arc;
use std::time::Duration;

use dfs_metadata::namespace::{ClusterState, NodeDiskState, Policy};
use dfs_proto::v1::admin_server::Admin;
use dfs_proto::wire::WireId;
use dfs_proto::{Failure, v1, wire};
use dfs_transport::{Caller, split};
use dfs_types::{DiskState, ErrorCode, NodeId, NodeState, Replication, Revision};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use super::upload::replication;
use super::{bootstrap, checks, drain, gc, holder, nodes, readmission, removal, upgrade, workers};
use crate::background::Health;
use crate::build_slots::{Failing, FailureCause};
use crate::core::{Core, location, unknown_location, wire_state};
use crate::failure;
use crate::node_liveness::{DiskReport, View};

/// Time to wait for a revision that a caller names.
const REVISION_WAIT: Duration = Duration::from_secs(5);
/// Interval of checking for it.
const REVISION_POLL: Duration = Duration::from_millis(50);
/// Time to wait for repair to apply the latest changes.
const COUNTS_WAIT: Duration = Duration::from_millis(500);
/// Interval of checking for it.
const COUNTS_POLL: Duration = Duration::from_millis(10);

pub(super) struct Handler(pub(super) Arc<Core>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Handler {
    async fn cluster_status(
        &self,
        request: Request<v1::ClusterStatusRequest>,
    ) -> Answer<v1::ClusterStatusResponse> {
        Ok(Response::new(cluster_status(&self.0, split(request)?).await?))
    }

    async fn set_replication(
        &self,
        request: Request<v1::SetReplicationRequest>,
    ) -> Answer<v1::SetReplicationResponse> {
        Ok(Response::new(set_replication(&self.0, split(request)?).await?))
    }

    async fn init(&self, request: Request<v1::InitRequest>) -> Answer<v1::InitResponse> {
        let (_, request) = split(request)?;
        let (asked, _) = bootstrap::parse(&request)?;
        let found = self.0.namespace.identity().cluster;
        Ok(Response::new(bootstrap::already(asked, found)?))
    }

    async fn admit(&self, request: Request<v1::AdmitRequest>) -> Answer<v1::AdmitResponse> {
        Ok(Response::new(nodes::admit(&self.0, split(request)?).await?))
    }

    async fn safe_to_stop(
        &self,
        request: Request<v1::SafeToStopRequest>,
    ) -> Answer<v1::SafeToStopResponse> {
        Ok(Response::new(nodes::safe_to_stop(&self.0, split(request)?).await?))
    }

    async fn maintenance(
        &self,
        request: Request<v1::MaintenanceRequest>,
    ) -> Answer<v1::MaintenanceResponse> {
        Ok(Response::new(nodes::maintenance(&self.0, split(request)?).await?))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Answer<v1::DrainResponse> {
        Ok(Response::new(drain::drain(&self.0, split(request)?).await?))
    }

    async fn undrain(&self, request: Request<v1::UndrainRequest>) -> Answer<v1::UndrainResponse> {
        Ok(Response::new(drain::undrain(&self.0, split(request)?).await?))
    }

    async fn retire_disk(
        &self,
        request: Request<v1::RetireDiskRequest>,
    ) -> Answer<v1::RetireDiskResponse> {
        Ok(Response::new(drain::retire_disk(&self.0, split(request)?).await?))
    }

    async fn give_up(&self, request: Request<v1::GiveUpRequest>) -> Answer<v1::GiveUpResponse> {
        Ok(Response::new(removal::give_up(&self.0, split(request)?).await?))
    }

    async fn readmit(&self, request: Request<v1::ReadmitRequest>) -> Answer<v1::ReadmitResponse> {
        Ok(Response::new(readmission::readmit(&self.0, split(request)?).await?))
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Answer<v1::DeregisterResponse> {
        Ok(Response::new(removal::deregister(&self.0, split(request)?).await?))
    }

    async fn forget(&self, request: Request<v1::ForgetRequest>) -> Answer<v1::ForgetResponse> {
        Ok(Response::new(removal::forget(&self.0, split(request)?).await?))
    }

    async fn workers(&self, request: Request<v1::WorkersRequest>) -> Answer<v1::WorkersResponse> {
        Ok(Response::new(workers::list(&self.0, split(request)?).await?))
    }

    async fn set_worker(
        &self,
        request: Request<v1::SetWorkerRequest>,
    ) -> Answer<v1::SetWorkerResponse> {
        Ok(Response::new(workers::set(&self.0, split(request)?).await?))
    }

    async fn check_replicas(
        &self,
        request: Request<v1::CheckReplicasRequest>,
    ) -> Answer<v1::CheckReplicasResponse> {
        Ok(Response::new(checks::run(&self.0, split(request)?).await?))
    }

    async fn gc_status(
        &self,
        request: Request<v1::GcStatusRequest>,
    ) -> Answer<v1::GcStatusResponse> {
        Ok(Response::new(gc::status(&self.0, split(request)?).await?))
    }

    async fn acknowledge_gc(
        &self,
        request: Request<v1::AcknowledgeGcRequest>,
    ) -> Answer<v1::AcknowledgeGcResponse> {
        Ok(Response::new(gc::acknowledge(&self.0, split(request)?).await?))
    }

    async fn upgrade_status(
        &self,
        request: Request<v1::UpgradeStatusRequest>,
    ) -> Answer<v1::UpgradeStatusResponse> {
        Ok(Response::new(upgrade::status(&self.0, split(request)?).await?))
    }

    async fn finalize_upgrade(
        &self,
        request: Request<v1::FinalizeUpgradeRequest>,
    ) -> Answer<v1::UpgradeStatusResponse> {
        Ok(Response::new(upgrade::finalize(&self.0, split(request)?).await?))
    }
}

/// Refuses a call for another cluster.
pub(super) fn check_cluster(core: &Core, cluster_id: &[u8]) -> Result<(), Failure> {
    let expected = wire::id("cluster_id", cluster_id)?;
    let found = core.namespace.identity().cluster;
    if expected == found {
        return Ok(());
    }
    Err(failure::of(&dfs_metadata::Error::WrongCluster { expected, found }))
}

async fn set_replication(
    core: &Core,
    (caller, request): (Caller, v1::SetReplicationRequest),
) -> Result<v1::SetReplicationResponse, Failure> {
    if !request.cluster_id.is_empty() {
        check_cluster(core, &request.cluster_id)?;
    }
    let v1::SetReplicationRequest { replication_factor: factor, min_write_replicas: min, .. } =
        request;
    let (namespace, scope) = (&core.namespace, caller.scope());
    let revision = match request.target {
        None => namespace.set_replication(&scope, replication(factor, min)?).await,
        Some(target) => {
            let target = wire::target("target", Some(target))?;
            let policy = if (factor, min) == (0, None) {
                None
            } else {
                let Replication { factor: copies, min_write } = replication(factor, min)?;
                Some(Policy { copies, min_write })
            };
            namespace.set_policy(&scope, &target, policy).await
        }
    };
    let revision = revision.map_err(|error| failure::of(&error))?;
    Ok(v1::SetReplicationResponse { revision: revision.0 })
}

async fn cluster_status(
    core: &Core,
    (caller, mut request): (Caller, v1::ClusterStatusRequest),
) -> Result<v1::ClusterStatusResponse, Failure> {
    let is_relayed = core.is_from_peer(&mut request)?;
    let state = state_since(core, &caller, request.min_revision).await?;
    core.take_nodes(&state.nodes);
    let least = core.namespace.chunks_changed_at().max(Revision(request.min_revision));
    let identity = core.namespace.identity();
    let work = match background_work(core, &state, least).await {
        work if !work.lease_holder.is_empty() || is_relayed => work,
        // The workers run elsewhere, and so does the health of chunks.
        work => holder::ask(core, least).await.unwrap_or(work),
    };
    let now = Instant::now();
    let nodes = {
        let registry = core.registry();
        state
            .nodes
            .nodes
            .iter()
            .filter(|(_, stored)| stored.state != NodeState::Removed)
            .map(|(node, stored)| {
                registry.view(*node, now).map_or_else(
                    || v1::NodeStatus {
                        // Registered, but its first heartbeat has not arrived yet.
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
        is_min_write_set: replication.min_write.is_some(),
        is_replication_changing: state.has_pending_policies,
        nodes,
        replication: Some(work.replication),
        workers: work.workers,
        reconciliation: Some(work.reconciliation),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        worker_lease_holder: work.lease_holder,
        refused_nodes: readmission::refused_nodes(core, now),
        now_ms: core.clock.now().millis(),
    })
}

/// State known only to the holder of the worker lease.
pub(super) struct BackgroundWork {
    pub(super) replication: v1::ReplicationStatus,
    pub(super) workers: Vec<v1::WorkerStatus>,
    pub(super) reconciliation: v1::ReconciliationStatus,
    /// Empty when that is another coordinator, or unknown.
    pub(super) lease_holder: String,
}

/// Returns the background work of this coordinator.
async fn background_work(core: &Core, state: &ClusterState, least: Revision) -> BackgroundWork {
    let replication = replication_status(core, state, least).await;
    let (workers, lease_holder) = (workers::statuses(core), core.background.lease_holder());
    let reconciliation = checks::status(core);
    BackgroundWork { replication, workers, reconciliation, lease_holder }
}

/// Returns the cluster at a revision not older than the requested one.
async fn state_since(
    core: &Core,
    caller: &Caller,
    min_revision: u64,
) -> Result<ClusterState, Failure> {
    let deadline = Instant::now() + REVISION_WAIT;
    loop {
        let state = core
            .namespace
            .cluster_state(&caller.scope())
            .await
            .map_err(|error| failure::of(&error))?;
        if state.revision.0 >= min_revision {
            return Ok(state);
        }
        if Instant::now() >= deadline {
            let message = format!(
                "the metadata is at revision {}, but {min_revision} was requested; try again later",
                state.revision
            );
            return Err(Failure::new(ErrorCode::Unavailable, message).retry_after(REVISION_WAIT));
        }
        sleep(REVISION_POLL).await;
    }
}

/// Returns a disk as its node reported it. A disk that is to be emptied is shown as such, also
/// before the node knows.
fn disk_status(view: &View, disk: &DiskReport) -> v1::Disk {
    let stored = view.member.disks.iter().find(|stored| stored.id == disk.disk);
    let is_retiring = stored.is_some_and(|stored| stored.is_retiring);
    let is_clear = stored.is_some_and(|stored| stored.state == NodeDiskState::Clear);
    let shows_retiring = matches!(disk.state, DiskState::Healthy | DiskState::Retiring);
    let (state, reason) = match is_retiring && shows_retiring {
        true if is_clear => (DiskState::Retiring, "it is empty and can be removed".to_owned()),
        true => (DiskState::Retiring, "its replicas are being moved to other nodes".to_owned()),
        false => (disk.state, disk.reason.clone()),
    };
    v1::Disk {
        state: v1::DiskState::from(state).into(),
        reason,
        can_be_removed: is_retiring && is_clear,
        ..wire_disk(disk)
    }
}

/// Converts a disk to its wire form.
pub(super) fn wire_disk(disk: &DiskReport) -> v1::Disk {
    v1::Disk {
        disk_id: disk.disk.to_wire(),
        capacity: disk.capacity,
        free: disk.free,
        chunks: disk.chunks,
        writers: disk.writers,
        state: v1::DiskState::from(disk.state).into(),
        reason: disk.reason.clone(),
        file_system_id: disk.file_system.map(WireId::to_wire).unwrap_or_default(),
        file_system_free: disk.file_system_free,
        scrub: disk.scrub.map(Into::into),
        read_percent: disk.read_percent,
        can_be_removed: false,
    }
}

fn node_status(view: &View) -> v1::NodeStatus {
    v1::NodeStatus {
        node: Some(location(view)),
        disks: view.disks.iter().map(|disk| disk_status(view, disk)).collect(),
        last_heard_ms: view.last_heard.map(|ago| ago.as_millis() as u64),
        version: view.member.version.clone(),
        refuses_chunks: view.refuses_chunks(),
        sessions: view.sessions,
        maintenance_left_ms: view.maintenance_left.map(|left| left.as_millis() as u64),
        lost_in_ms: view.lost_in.map(|left| left.as_millis() as u64),
    }
}

/// Returns the health of chunks, including all changes up to `least`. Waits a moment for repair to
/// apply them.
async fn replication_status(
    core: &Core,
    state: &ClusterState,
    least: Revision,
) -> v1::ReplicationStatus {
    let deadline = Instant::now() + COUNTS_WAIT;
    let Health { counts, repairing, without_target, degraded_since, unreadable, .. } = loop {
        let now = Instant::now();
        let lost = core.registry().cluster(now).lost();
        if let Some(known) = core.background.health(&lost, least) {
            break known;
        }
        if now >= deadline || core.background.lease.grant().is_none() {
            let revision = state.revision.0;
            let held = core.background.held().unwrap_or_default();
            return v1::ReplicationStatus { revision, held, ..v1::ReplicationStatus::default() };
        }
        sleep(COUNTS_POLL).await;
    };
    v1::ReplicationStatus {
        is_known: true,
        chunks: counts.chunks,
        under_replicated: counts.under_replicated,
        without_spare: counts.without_spare,
        without_target,
        degraded_ms: degraded_since.map(|since| since.elapsed().as_millis() as u64),
        missing: counts.missing,
        bad_replicas: counts.bad_replicas,
        repairing,
        revision: state.revision.0,
        unreadable_records: unreadable.count() as u64,
        unreadable_example: unreadable.example(),
        held: core.background.held().unwrap_or_default(),
        failing_targets: failing_targets(core),
    }
}

fn failing_targets(core: &Core) -> Vec<v1::FailingTarget> {
    let failing = core.background.builds.failing(Instant::now()).into_iter();
    let wire = |(node, Failing { left, cause }): (NodeId, Failing)| v1::FailingTarget {
        node_id: node.to_wire(),
        rests_ms: left.as_millis() as u64,
        reaches_no_source: cause == FailureCause::Unreached,
    };
    failing.map(wire).collect()
}

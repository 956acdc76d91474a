//! The service `Membership`: registration and heartbeats of datanodes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_metadata::namespace::{ClusterIdentity, NodeDisk, NodeDiskState, Registration};
use dfs_proto::v1::membership_server::Membership;
use dfs_proto::wire::WireId;
use dfs_proto::{Failure, FieldError, v1, wire};
use dfs_transport::{Caller, Channels, split};
use dfs_types::{
    DiskState, ErrorCode, Incarnation, Level, NodeId, RegistrationNumber, ReplicaVerdict,
    StreamOpening,
};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::upload::label;
use crate::core::{Core, wire_state};
use crate::node_liveness::{DiskReport, HeartbeatSource, Process, Report};
use crate::refused_nodes::Applicant;
use crate::{failure, verdicts};

/// Maximum number of disks per node.
const DISKS_MAX: usize = 64;
/// Maximum number of verdicts per report.
const VERDICTS_MAX: usize = 1_000;
/// Greatest high part of stamps: they have 24 bits for it.
const START_MAX: u64 = (1 << 24) - 2;
/// Maximum number of orders queued for a node that does not read them.
const ORDERS_MAX: usize = 2;

pub(super) struct Handler(pub(super) Arc<Core>);

#[tonic::async_trait]
impl Membership for Handler {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        Ok(Response::new(register(&self.0, split(request)?).await?))
    }

    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<v1::HeartbeatOrder, Status>> + Send>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatReport>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (orders, outgoing) = mpsc::channel(ORDERS_MAX);
        let core = self.0.clone();
        let (caller, reports) = split(request)?;
        tokio::spawn(async move {
            let stopping = core.stopping.clone();
            let ended = tokio::select! {
                biased;
                () = stopping.requested() => return,
                ended = listen(&core, &caller, reports, &orders) => ended,
            };
            if let Err(failure) = ended {
                // The node may be gone.
                drop(orders.try_send(Err(failure.into())));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

async fn register(
    core: &Core,
    (caller, mut request): (Caller, v1::RegisterRequest),
) -> Result<v1::RegisterResponse, Failure> {
    if !core.settings.join_secret.matches(&request.join_secret) {
        warn!(address = %request.address, "a datanode used a wrong join secret");
        return Err(Failure::new(
            ErrorCode::Unauthenticated,
            "the join secret is wrong; give the datanode the one of this cluster",
        ));
    }
    let instance = request.instance_id;
    let disks = parse_disks(std::mem::take(&mut request.disks))?;
    let registration = parse_registration(request, &disks)?;
    let (node, now) = (registration.node, Instant::now());
    let remembered = |error: dfs_metadata::Error| {
        if let dfs_metadata::Error::OldImage { .. } = &error {
            let Registration { address, host, registration, .. } = registration.clone();
            core.refused_nodes.add(node, Applicant { address, host, registration, disks }, now);
        }
        failure::of(&error)
    };
    // A permanent refusal comes first: such a process must stop issuing receipts.
    let checked = core.namespace.check_registration(&caller.scope(), &registration).await;
    let is_current = match checked {
        Ok(is_current) => is_current,
        Err(error) => return Err(remembered(error)),
    };
    // A copy of the disks must not cut the node off.
    let address = registration.address.as_str();
    let applicant = Process { instance, address };
    if let Some(address) = core.registry().other_process(node, applicant, is_current, now) {
        warn!(%node, address, applicant = registration.address, "a second process is refused");
        let message = format!(
            "another process, at {address}, sends heartbeats as node {node}: it may be a copy of \
             the same disks; stop one of them"
        );
        return Err(Failure::new(ErrorCode::Busy, message));
    }
    let registered =
        core.namespace.register(&caller.scope(), &registration, core.settings.auto_admit).await;
    let registered = match registered {
        Ok(registered) => registered,
        Err(error) => return Err(remembered(error)),
    };
    core.refused_nodes.remove(node);
    info!(
        node = %registration.node,
        address = registration.address,
        registration = registered.number.0,
        "a datanode registered"
    );
    let ClusterIdentity { cluster, incarnation } = core.namespace.identity();
    Ok(v1::RegisterResponse {
        cluster_id: cluster.to_wire(),
        incarnation: incarnation.0,
        registration: registered.number.0,
        node_key: bytes::Bytes::copy_from_slice(registered.key.expose()),
        order_key: bytes::Bytes::copy_from_slice(registered.order_key.expose()),
        heartbeat_interval_ms: core.settings.heartbeat_interval_ms,
        state: wire_state(registered.state),
        level: registered.level.0,
        are_disks_returning: registered.are_disks_returning,
    })
}

fn parse_registration(
    request: v1::RegisterRequest,
    disks: &[DiskReport],
) -> Result<Registration, FieldError> {
    let cluster = wire::optional_id("cluster_id", &request.cluster_id)?
        .map(|cluster| ClusterIdentity { cluster, incarnation: Incarnation(request.incarnation) });
    if cluster.is_none() && request.registration != 0 {
        return Err(FieldError::new("cluster_id", "not set, but there is a registration"));
    }
    let address = Channels::parse_address(&request.address)
        .map_err(|error| FieldError::new("address", error))?;
    Ok(Registration {
        node: wire::id("node_id", &request.node_id)?,
        cluster,
        registration: RegistrationNumber(start("registration", request.registration)?),
        start: start("start", request.start)?,
        address: label("address", address)?,
        zone: label("zone", request.zone)?,
        host: label("host", request.host)?,
        version: label("version", request.version)?,
        level: Level(request.level),
        disks: disks
            .iter()
            .filter(|disk| disk.state.is_in_service())
            .map(|disk| disk.disk)
            .collect(),
        secret: wire::node_secret("node_secret", &request.node_secret)?,
    })
}

/// Checks a number that becomes the high part of stamps.
fn start(field: &'static str, start: u64) -> Result<u64, FieldError> {
    if start > START_MAX {
        return Err(FieldError::new(field, format_args!("at most {START_MAX} is allowed")));
    }
    Ok(start)
}

/// Handles the reports of one node until either side ends.
async fn listen(
    core: &Core,
    caller: &Caller,
    mut reports: Streaming<v1::HeartbeatReport>,
    orders: &mpsc::Sender<Result<v1::HeartbeatOrder, Status>>,
) -> Result<(), Failure> {
    // A stream silent for that long is useless.
    let silence_max = Duration::from_millis(core.settings.suspect_after_ms);
    let mut opened: Option<Opened> = None;
    let mut result = Ok(());
    while let Ok(Some(Ok(report))) = timeout(silence_max, reports.next()).await {
        let sequence = report.sequence;
        let order = match take(core, caller, &mut opened, report).await {
            Ok(Some(order)) => order,
            Ok(None) => v1::HeartbeatOrder {
                sequence,
                must_register: true,
                ..v1::HeartbeatOrder::default()
            },
            Err(failure) => {
                result = Err(failure);
                break;
            }
        };
        let is_last = order.must_register;
        if !matches!(timeout(silence_max, orders.send(Ok(order))).await, Ok(Ok(()))) || is_last {
            break;
        }
    }
    if let Some(Opened { node, stream, .. }) = opened {
        core.registry().close_stream(node, stream);
    }
    result
}

/// The node and process behind a heartbeat stream.
struct Opened {
    node: NodeId,
    source: HeartbeatSource,
    stream: u64,
}

/// Handles one report. `None` when the node must register again.
async fn take(
    core: &Core,
    caller: &Caller,
    opened: &mut Option<Opened>,
    report: v1::HeartbeatReport,
) -> Result<Option<v1::HeartbeatOrder>, Failure> {
    let node = wire::id("node_id", &report.node_id)?;
    let registration = RegistrationNumber(report.registration);
    let source = HeartbeatSource { registration, instance: report.instance_id };
    let reported = parse_verdicts(report.verdicts)?;
    let stream = match opened {
        Some(opened) if (opened.node, opened.source) == (node, source) => opened.stream,
        Some(_) => {
            let what = "a heartbeat stream belongs to one process and registration of one node";
            return Err(FieldError::new("node_id", what).into());
        }
        None => {
            // Registration numbers are part of any copy or image of the metadata. Without this
            // check, a node that keeps running would serve both the old state and the new one.
            let ClusterIdentity { cluster, incarnation } = core.namespace.identity();
            if report.incarnation != incarnation.0 {
                let theirs = report.incarnation;
                info!(%node, theirs, ours = %incarnation, "a datanode must register again");
                return Ok(None);
            }
            let HeartbeatSource { registration, instance } = source;
            let stream = report.stream;
            let opening =
                StreamOpening { cluster, incarnation, node, registration, instance, stream };
            if !opening.is_genuine(core.namespace.keys(), &report.proof) {
                // A node with another key gets its own when it registers.
                warn!(%node, registration = registration.0, "a heartbeat without the node key");
                return Ok(None);
            }
            let opening = open(core, caller, node, source, report.stream).await?;
            let Some(stream) = opening else { return Ok(None) };
            *opened = Some(Opened { node, source, stream });
            stream
        }
    };
    let heard = Report {
        disks: parse_disks(report.disks)?,
        is_full: report.is_full,
        is_stopping: report.is_stopping,
        sessions: report.sessions,
        build_weight: report.build_weight,
    };
    let state = {
        let mut registry = core.registry();
        let state = registry.record_heartbeat(node, stream, heard, Instant::now());
        if state.is_some() && registry.must_register(node) {
            info!(%node, "a datanode registers again, as a copy of its disks asked to join");
            return Ok(None);
        }
        state
    };
    let Some(state) = state else {
        if core.registry().has_stream_of(node, source) {
            // The process reached this coordinator twice; its registration is valid.
            let message = "superseded by another heartbeat stream of this process";
            return Err(Failure::new(ErrorCode::Stale, message));
        }
        // A newer stream has taken over; the next attempt shows whose registration is valid.
        info!(%node, "a heartbeat stream was replaced by a newer one");
        return Ok(None);
    };
    let disks = core.registry().member_disks(node).to_vec();
    let ids_of = |is_meant: fn(&NodeDisk) -> bool| {
        disks.iter().filter(|disk| is_meant(disk)).map(|disk| disk.id.to_wire()).collect()
    };
    Ok(Some(v1::HeartbeatOrder {
        sequence: report.sequence,
        level: core.namespace.written_level().0,
        state: wire_state(state),
        settled: verdicts::record(core, &caller.scope(), node, reported).await,
        must_register: false,
        coordinators: Vec::new(),
        now_ms: core.clock.now().millis(),
        coordinator: core.instance,
        retiring_disks: ids_of(|disk| disk.is_retiring),
        retired_disks: ids_of(|disk| disk.state == NodeDiskState::Clear),
        scrub: core.background.scrub_control(),
    }))
}

/// Puts the registration in use and starts a new stream, the `opened`th of its process. `None` when
/// the registration is not valid.
async fn open(
    core: &Core,
    caller: &Caller,
    node: NodeId,
    source: HeartbeatSource,
    opened: u64,
) -> Result<Option<u64>, Failure> {
    let scope = caller.scope();
    let stored = core.namespace.node(&scope, node).await.map_err(|error| failure::of(&error))?;
    let is_first = stored.is_some_and(|stored| stored.confirmed != source.registration);
    // Between the registration and this, the other process may have come back.
    if is_first && let Some(address) = core.registry().other_stream(node, source.instance) {
        let message = format!("another process, at {address}, sends heartbeats as node {node}");
        return Err(Failure::new(ErrorCode::Busy, message));
    }
    let confirmed = core.namespace.confirm_registration(&scope, node, source.registration);
    let stored = match confirmed.await {
        Ok(stored) => stored,
        Err(
            error @ (dfs_metadata::Error::NotRegistered { .. }
            | dfs_metadata::Error::UnknownNode(_)),
        ) => {
            info!(%node, %error, "a datanode must register again");
            return Ok(None);
        }
        Err(error) => return Err(failure::of(&error)),
    };
    let now = Instant::now();
    let mut registry = core.registry();
    if let Some(member) = core.member(&stored, now) {
        registry.set_member(node, member, now);
    }
    Ok(registry.open_stream(node, source, opened))
}

fn parse_verdicts(verdicts: Vec<v1::ReplicaVerdict>) -> Result<Vec<ReplicaVerdict>, FieldError> {
    let verdicts = wire::at_most("verdicts", verdicts, VERDICTS_MAX)?;
    verdicts.into_iter().map(|verdict| wire::verdict("verdicts", verdict)).collect()
}

fn reason(text: String) -> Result<String, FieldError> {
    if text.len() > DiskState::REASON_LEN_MAX {
        let what = format_args!("at most {} bytes are allowed", DiskState::REASON_LEN_MAX);
        return Err(FieldError::new("disks.reason", what));
    }
    Ok(text)
}

fn parse_disks(disks: Vec<v1::Disk>) -> Result<Vec<DiskReport>, FieldError> {
    wire::at_most("disks", disks, DISKS_MAX)?
        .into_iter()
        .map(|disk| {
            Ok(DiskReport {
                disk: wire::id("disks.disk_id", &disk.disk_id)?,
                capacity: disk.capacity,
                free: disk.free,
                chunks: disk.chunks,
                writers: disk.writers,
                state: wire::disk_state("disks.state", disk.state)?,
                reason: reason(disk.reason)?,
                file_system: wire::optional_id("disks.file_system_id", &disk.file_system_id)?,
                file_system_free: disk.file_system_free,
                scrub: disk.scrub.map(wire::disk_scrub),
                read_percent: disk.read_percent,
            })
        })
        .collect()
}

//! Heartbeats: the node reports its state, the coordinator replies with its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::v1::membership_client::MembershipClient;
use dfs_proto::wire::{self, WireId};
use dfs_proto::{Failure, v1};
use dfs_types::{DiskId, ErrorCode, Level, NodeState, StreamOpening, Timestamp};
use dfs_workers::{Control, SCRUB};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;

use crate::node::{Membership, Node};
use crate::verdicts::PER_REPORT;

/// Minimum time limit for a coordinator to reply.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Missed replies after which a coordinator is considered gone, if that is longer.
const MISSED_MAX: u32 = 3;
/// Longest pause of a worker, whatever a coordinator says.
const PAUSE_MAX: Duration = Duration::from_hours(24 * 7);
/// Difference between two ends of a pause that is only due to the time of messages.
const PAUSE_PRECISION: Duration = Duration::from_secs(5);

/// Why heartbeats ended, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The coordinator does not know the registration, or a disk came into service after it.
    MustRegister,
    /// The node has a different registration now, or none.
    Replaced,
    /// The coordinator has a newer stream of this process, through another of its addresses.
    Superseded,
}

/// Sends heartbeats to one coordinator until they end. Sets `is_in_touch` with the first reply that
/// accepts the node as registered.
pub(super) async fn run(
    node: &Node,
    address: &str,
    membership: &Membership,
    is_in_touch: &AtomicBool,
) -> Result<End, Failure> {
    let silence = ANSWER_WITHIN.max(membership.heartbeat_interval * MISSED_MAX);
    let mut news = node.watch_news();
    let mut current = node.watch_membership();
    news.mark_unchanged();
    let mut sequence = 1;
    let stream = node.next_stream();
    let (reports, outgoing) = mpsc::channel(1);
    // The first report is queued before the call is made.
    let first = v1::HeartbeatReport {
        proof: proof(node, membership, stream),
        ..report(node, membership, stream, sequence)
    };
    let _ = reports.try_send(first);
    let channel = node
        .channels
        .control(address)
        .map_err(|error| Failure::new(ErrorCode::InvalidArgument, error.to_string()))?;
    let mut client = MembershipClient::new(channel);
    let call = client.heartbeat(ReceiverStream::new(outgoing));
    let mut orders = tokio::time::timeout(silence, call)
        .await
        .map_err(|_| timed_out())?
        .map_err(|status| Failure::from_status(&status))?
        .into_inner();
    let start = Instant::now() + membership.heartbeat_interval;
    let mut tick = tokio::time::interval_at(start, membership.heartbeat_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = tokio::time::sleep(silence);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            biased;
            order = orders.message() => {
                let order = match order.map_err(|status| Failure::from_status(&status)) {
                    Err(failure) if failure.code == ErrorCode::Stale => {
                        return Ok(End::Superseded);
                    }
                    order => order?,
                };
                let order = order.ok_or_else(|| {
                    Failure::new(ErrorCode::Unavailable, "the coordinator ended the heartbeats")
                })?;
                if order.must_register {
                    return Ok(End::MustRegister);
                }
                is_in_touch.store(true, Ordering::Relaxed);
                follow(node, membership, &order).await;
                deadline.as_mut().reset(Instant::now() + silence);
                continue;
            }
            // Both senders live as long as the node.
            () = async { drop(current.wait_for(|now| !is_same(now.as_ref(), membership)).await) } => {
                return Ok(End::Replaced);
            }
            () = &mut deadline => return Err(timed_out()),
            _ = news.changed() => {}
            _ = tick.tick() => {}
        }
        if node.has_unregistered_disk(membership) {
            return Ok(End::MustRegister);
        }
        // A coordinator that reads reports too slowly gets fewer.
        if let Ok(room) = reports.try_reserve() {
            sequence += 1;
            room.send(report(node, membership, stream, sequence));
        }
    }
}

fn is_same(now: Option<&Membership>, membership: &Membership) -> bool {
    now.is_some_and(|now| now.registration == membership.registration)
}

fn timed_out() -> Failure {
    Failure::new(ErrorCode::Unavailable, "the coordinator has stopped replying")
}

fn report(node: &Node, membership: &Membership, stream: u64, sequence: u64) -> v1::HeartbeatReport {
    v1::HeartbeatReport {
        node_id: node.id.to_wire(),
        registration: membership.registration.0,
        disks: disks(node),
        is_full: node.is_full(),
        sessions: node.open_sessions(),
        verdicts: node.verdicts.page().into_iter().map(Into::into).collect(),
        sequence,
        is_stopping: node.is_stopping(),
        instance_id: node.instance,
        incarnation: membership.incarnation.0,
        stream,
        proof: Bytes::new(),
        build_weight: node.settings.build_weight(),
    }
}

/// Returns the proof that this node opens the stream.
fn proof(node: &Node, membership: &Membership, stream: u64) -> Bytes {
    let opening = StreamOpening {
        cluster: membership.cluster,
        incarnation: membership.incarnation,
        node: node.id,
        registration: membership.registration,
        instance: node.instance,
        stream,
    };
    Bytes::copy_from_slice(&opening.seal(&membership.key).0)
}

/// Returns the current disks of the store.
pub(super) fn disks(node: &Node) -> Vec<v1::Disk> {
    let scrubs = node.scrub.disks();
    let scrub_of = |disk: DiskId| scrubs.iter().find(|(scrubbed, _)| *scrubbed == disk);
    let usage = node.store.usage().into_iter();
    usage
        .map(|disk| v1::Disk {
            scrub: scrub_of(disk.disk).map(|(_, scrub)| (*scrub).into()),
            disk_id: disk.disk.to_wire(),
            capacity: disk.capacity,
            free: disk.free,
            chunks: disk.chunks,
            writers: disk.writers,
            state: v1::DiskState::from(disk.state).into(),
            file_system_id: disk.file_system.map(WireId::to_wire).unwrap_or_default(),
            file_system_free: disk.file_system_free,
            reason: disk.reason,
            read_percent: disk.read_percent.map(u32::from),
            can_be_removed: false,
        })
        .collect()
}

/// Follows what the cluster wants of whole disks.
async fn follow_for_disks(node: &Node, order: &v1::HeartbeatOrder) {
    // An invalid id names no disk of this node.
    let ids =
        |ids: &[Bytes]| ids.iter().filter_map(|id| DiskId::from_slice(id)).collect::<Vec<_>>();
    node.store.set_retiring(&ids(&order.retiring_disks));
    if !order.retired_disks.is_empty()
        && let Err(error) = node.store.forget_disks(&ids(&order.retired_disks)).await
    {
        tracing::warn!(node = %node.id, %error, "cannot record that disks were given up");
    }
}

/// Adopts the settings of the scrub.
fn follow_for_scrub(node: &Node, order: &v1::WorkerControl) {
    let handle = node.workers.of(&SCRUB);
    let v1::WorkerControl { pause_left_ms, rate, request } = *order;
    let left = Duration::from_millis(pause_left_ms).min(PAUSE_MAX);
    let known = handle.control();
    let mut paused_until = (!left.is_zero()).then(|| Instant::now() + left);
    if let (Some(until), Some(known)) = (paused_until, known.paused_until)
        && until.max(known).duration_since(until.min(known)) < PAUSE_PRECISION
    {
        paused_until = Some(known);
    }
    // A request is not withdrawn by a coordinator that does not know it.
    let control = Control { paused_until, rate, request: request.max(known.request) };
    if control != known {
        tracing::info!(node = %node.id, pause_left_ms, rate, request, "new settings of the scrub");
        handle.set_control(control);
    }
}

async fn follow(node: &Node, membership: &Membership, order: &v1::HeartbeatOrder) {
    // Before anything at that level is written.
    node.learn_level(Level(order.level)).await;
    follow_for_disks(node, order).await;
    if let Some(control) = &order.scrub {
        follow_for_scrub(node, control);
    }
    for settled in order.settled.iter().take(PER_REPORT) {
        if let Ok(replica) = wire::replica("settled.replica", settled.replica.clone()) {
            let recorded = wire::replica_condition("settled.condition", settled.condition).ok();
            node.verdicts.settle(replica, settled.number, recorded);
        }
    }
    node.clocks.record(order.coordinator, Timestamp::from_millis(order.now_ms));
    // A state unknown to this version does not accept chunks.
    let state = wire::node_state("state", order.state).unwrap_or(NodeState::Joining);
    node.record_state(membership.registration, state);
}

//! The calls of `Admin` that admit nodes and announce maintenance.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use dfs_metadata::namespace::{Grant, Node, Safety, Shortfall, Unknown};
use dfs_proto::{Failure, FieldError, v1, wire};
use dfs_transport::Caller;
use dfs_types::{ErrorCode, NodeId, NodeState};
use tokio::time::{Instant, timeout};
use tracing::info;

use super::admin::check_cluster;
use crate::core::{Core, wire_state};
use crate::failure;
use crate::safety_scans::Check;

/// Time limit of a check of the chunks that are not at rest, after which all chunks are scanned.
const QUICK_WITHIN: Duration = Duration::from_secs(3);
/// Maximum number of nodes per request.
pub(super) const NODES_MAX: usize = 100;
/// Maximum number of attempts while conflicting changes win.
pub(super) const TRIES: u32 = 8;
/// Maximum number of nodes that a refusal lists.
const NAMED_MAX: usize = 5;

pub(super) async fn admit(
    core: &Core,
    (caller, request): (Caller, v1::AdmitRequest),
) -> Result<v1::AdmitResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let stored =
        core.namespace.admit(&caller.scope(), node).await.map_err(|error| failure::of(&error))?;
    info!(%node, state = %stored.state, "a datanode was admitted");
    let state = wire_state(stored.state);
    core.take_members(&[(node, stored)]);
    Ok(v1::AdmitResponse { state })
}

pub(super) async fn safe_to_stop(
    core: &Arc<Core>,
    (caller, request): (Caller, v1::SafeToStopRequest),
) -> Result<v1::SafeToStopResponse, Failure> {
    check_cluster(core, &request.cluster_id)?;
    let ids = wire::at_most("node_ids", request.node_ids, NODES_MAX)?;
    let nodes = ids.iter().map(|node| wire::id("node_ids", node));
    let nodes = nodes.collect::<Result<BTreeSet<NodeId>, _>>()?;
    if nodes.is_empty() {
        return Err(FieldError::new("node_ids", "not set").into());
    }
    match check_safety(core, &caller, &nodes).await? {
        Check::Known(safety) => Ok(safety_response(core, &safety, &nodes)),
        Check::Pending(checked) => Ok(pending(checked)),
    }
}

pub(super) async fn maintenance(
    core: &Arc<Core>,
    (caller, request): (Caller, v1::MaintenanceRequest),
) -> Result<v1::MaintenanceResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let ttl = Duration::from_millis(request.ttl_ms);
    if ttl > Node::MAINTENANCE_MAX {
        let most = Node::MAINTENANCE_MAX.as_millis();
        return Err(FieldError::new("ttl_ms", format_args!("at most {most}")).into());
    }
    if ttl.is_zero() || !request.require_safe {
        let is_granted = announce(core, &caller, node, ttl, Grant::Always).await?;
        return Ok(v1::MaintenanceResponse { is_granted, safety: None });
    }
    // A renewal needs no check, in which the node would only conflict with itself.
    if announce(core, &caller, node, ttl, Grant::Renewal).await? {
        return Ok(v1::MaintenanceResponse { is_granted: true, safety: None });
    }
    let nodes = BTreeSet::from([node]);
    for _ in 0..TRIES {
        let safety = match check_safety(core, &caller, &nodes).await? {
            Check::Known(safety) => safety,
            Check::Pending(checked) => {
                let safety = Some(pending(checked));
                return Ok(v1::MaintenanceResponse { is_granted: false, safety });
            }
        };
        let is_granted = if safety.is_safe() {
            announce(core, &caller, node, ttl, Grant::Unchanged(safety.intent)).await?
        } else {
            false
        };
        if is_granted || !safety.is_safe() {
            let safety = Some(safety_response(core, &safety, &nodes));
            return Ok(v1::MaintenanceResponse { is_granted, safety });
        }
    }
    Err(overtaken())
}

/// Parses the node of an administrator's call.
pub(super) fn node_of_call(core: &Core, cluster: &[u8], node: &[u8]) -> Result<NodeId, Failure> {
    check_cluster(core, cluster)?;
    Ok(wire::id("node_id", node)?)
}

async fn announce(
    core: &Core,
    caller: &Caller,
    node: NodeId,
    ttl: Duration,
    grant: Grant,
) -> Result<bool, Failure> {
    let announced = core.namespace.set_maintenance(&caller.scope(), node, ttl, grant).await;
    let Some(stored) = announced.map_err(|error| failure::of(&error))? else { return Ok(false) };
    info!(%node, ?ttl, "the maintenance of a datanode was set");
    core.take_members(&[(node, stored)]);
    Ok(true)
}

/// Checks whether `nodes` may stop, as far as this coordinator can tell: at once if the chunks that
/// are not at rest decide, otherwise with a scan in the background.
async fn check_safety(
    core: &Arc<Core>,
    caller: &Caller,
    nodes: &BTreeSet<NodeId>,
) -> Result<Check, Failure> {
    let liveness = core.registry().liveness(Instant::now());
    let scope = caller.scope();
    let quick = core.namespace.safe_to_stop(&scope, nodes, &liveness);
    if let Ok(quick) = timeout(QUICK_WITHIN, quick).await
        && let Some(safety) = quick.map_err(|error| failure::of(&error))?
    {
        return Ok(Check::Known(safety));
    }
    core.safety_scans.check((&core.namespace, &scope), nodes, &liveness).await
}

/// Returns the answer while all chunks are being checked.
fn pending(checked: u64) -> v1::SafeToStopResponse {
    v1::SafeToStopResponse {
        is_pending: true,
        chunks_checked: checked,
        reason: format!("all chunks are being checked, {checked} so far; ask again"),
        ..v1::SafeToStopResponse::default()
    }
}

fn safety_response(
    core: &Core,
    safety: &Safety,
    nodes: &BTreeSet<NodeId>,
) -> v1::SafeToStopResponse {
    v1::SafeToStopResponse {
        is_safe: safety.is_safe(),
        chunks_below: safety.chunks_below,
        chunks_unreadable: safety.chunks_unreadable,
        reason: match safety.example {
            Some(example) => {
                let reason = unsafe_reason(core, safety.chunks_below, example, nodes);
                reason + &unreadable_nodes(&safety.unknown_nodes)
            }
            None => unreadable_reason(&safety.unknown).unwrap_or_default(),
        },
        revision: safety.revision.0,
        is_pending: false,
        chunks_checked: 0,
    }
}

/// Explains why unreadable chunk records prevent approval, and what to do.
pub(super) fn unreadable_reason(unknown: &Unknown) -> Option<String> {
    let Unknown { count, example } = unknown;
    let example = example.as_ref()?;
    Some(format!(
        "chunk records that cannot be read: {count}, for example {} ({}), so the locations of \
         their replicas are unknown; restore these records from a backup of the metadata, or \
         delete the files that cannot be opened because of them, which removes the records as well",
        example.key, example.why
    ))
}

/// Names the unreadable node records, if any, as the rest of a refusal.
pub(super) fn unreadable_nodes(unknown: &Unknown) -> String {
    let Unknown { count, example: Some(example) } = unknown else { return String::new() };
    format!(
        "; replicas on nodes whose records are unreadable do not count; unreadable: {count}, for \
         example {} ({}); restore them from a backup of the metadata",
        example.key, example.why
    )
}

/// Explains why it is not safe, with an example and the nodes that are already away.
fn unsafe_reason(core: &Core, chunks: u64, example: Shortfall, nodes: &BTreeSet<NodeId>) -> String {
    let Shortfall { chunk, left, needed } = example;
    let mut reason = format!(
        "chunks that would have too few good replicas: {chunks}, for example {chunk}, which needs \
         {needed} and would have {left}"
    );
    let now = Instant::now();
    let (views, responsive) = {
        let registry = core.registry();
        (registry.views(now), registry.responsive(now))
    };
    let away: Vec<_> = views
        .iter()
        .filter(|view| !nodes.contains(&view.node))
        .filter(|view| {
            let stays_up = matches!(view.state, NodeState::Active | NodeState::Draining);
            !stays_up || !responsive.contains(&view.node)
        })
        .collect();
    for (number, view) in away.iter().take(NAMED_MAX).enumerate() {
        let before = if number == 0 { "; already unavailable: node" } else { ", node" };
        let state = if view.is_stopping { "stopping".to_owned() } else { view.state.to_string() };
        // Writing to a string cannot fail.
        let _ = write!(reason, "{before} {} ({state})", view.node);
    }
    if away.len() > NAMED_MAX {
        let _ = write!(reason, " and {} more", away.len() - NAMED_MAX);
    }
    reason
}

pub(super) fn overtaken() -> Failure {
    let message = "others kept changing the desired states of nodes; try again";
    Failure::new(ErrorCode::Conflict, message).retry_after(Duration::from_millis(200))
}

//! The calls of `Admin` that remove nodes from the cluster for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_metadata::namespace::{Holdings, Loss, Node};
use dfs_proto::wire::WireId as _;
use dfs_proto::{Failure, v1};
use dfs_transport::{Caller, spawn_in_request};
use dfs_types::{ErrorCode, NodeId, NodeState, RegistrationNumber, counted, with_causes};
use tokio::time::Instant;
use tracing::{info, warn};

use super::nodes::{self, TRIES, node_of_call, overtaken, unreadable_reason};
use crate::core::Core;
use crate::failure;
use crate::removals::{Kind, NodeLoss, Obstacle, Progress};

/// Removes an empty node, or checks whether that is possible.
pub(super) async fn deregister(
    core: &Arc<Core>,
    (caller, request): (Caller, v1::DeregisterRequest),
) -> Result<v1::DeregisterResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let kind = if request.is_dry_run { Kind::CheckDeregister } else { Kind::Deregister };
    let progress = remove(core, caller, node, kind).await?;
    let (is_pending, chunks_checked) = progress.to_wire();
    Ok(v1::DeregisterResponse { is_pending, chunks_checked })
}

/// Removes a lost node, or checks what would be lost with it.
pub(super) async fn forget(
    core: &Arc<Core>,
    (caller, request): (Caller, v1::ForgetRequest),
) -> Result<v1::ForgetResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let accepted =
        request.accepted.map(|v1::Loss { chunks, bytes, digest }| Loss { chunks, bytes, digest });
    let kind = if request.is_dry_run {
        Kind::CheckForget
    } else {
        Kind::Forget(accepted.unwrap_or_default())
    };
    match remove(core, caller, node, kind).await {
        Ok(progress) => {
            let (is_pending, chunks_checked) = progress.to_wire();
            Ok(v1::ForgetResponse { is_pending, chunks_checked, loss: None })
        }
        Err(Obstacle::Loss(needed)) => {
            let loss = Some(wire_loss(&needed));
            Ok(v1::ForgetResponse { loss, ..v1::ForgetResponse::default() })
        }
        Err(Obstacle::Failure(failure)) => Err(failure),
    }
}

fn wire_loss(needed: &NodeLoss) -> v1::NodeLoss {
    let Loss { chunks, bytes, digest } = needed.loss;
    let listed = needed
        .listed
        .iter()
        .map(|listed| v1::NeededChunk { chunk_id: listed.chunk.to_wire(), inode: listed.inode.0 });
    v1::NodeLoss {
        loss: Some(v1::Loss { chunks, bytes, digest }),
        listed: listed.collect(),
        note: needed.note.clone(),
    }
}

/// Gives a lost node up, so that its replicas are rebuilt however many nodes are lost.
pub(super) async fn give_up(
    core: &Core,
    (caller, request): (Caller, v1::GiveUpRequest),
) -> Result<v1::GiveUpResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let state = core.registry().state(node, Instant::now());
    if let Some(state) = state.filter(|state| *state != NodeState::Lost) {
        let message = format!("node {node} is {state}, and only a lost one is given up");
        return Err(refused(message));
    }
    let stored = core.namespace.give_up(&caller.scope(), node).await;
    let stored = stored.map_err(|error| failure::of(&error))?;
    warn!(%node, "a lost datanode was given up");
    core.take_members(&[(node, stored)]);
    Ok(v1::GiveUpResponse {})
}

/// Begins to remove a node, or to check whether that is possible, unless that is in progress, and
/// waits for a moment. The removal continues when the caller goes away, so that nothing is left half
/// done.
async fn remove(
    core: &Arc<Core>,
    caller: Caller,
    node: NodeId,
    kind: Kind,
) -> Result<Progress, Obstacle> {
    let begin = |checked: Arc<AtomicU64>| {
        let core = core.clone();
        spawn_in_request(async move {
            match kind {
                Kind::Deregister => remove_if(&core, &caller, node, &Empty, &checked).await,
                Kind::Forget(accepted) => {
                    remove_if(&core, &caller, node, &Expendable { accepted }, &checked).await
                }
                Kind::CheckDeregister => check(&core, &caller, node, &Empty, &checked).await,
                Kind::CheckForget => {
                    let condition = Expendable { accepted: Loss::default() };
                    check(&core, &caller, node, &condition, &checked).await
                }
            }
        })
    };
    core.removals.wait(node, kind, begin).await
}

/// Condition on which a node may be removed.
trait Condition: Sync {
    /// Checks the reports of the node itself, or its silence.
    fn check_node(&self, core: &Core, node: NodeId, stored: &Node) -> Result<(), Failure>;

    /// Checks the records.
    fn check_records(&self, holdings: &Holdings) -> Result<(), Obstacle>;
}

/// Requires that neither the node nor the records name a replica on it.
struct Empty;

/// Requires that it is lost, and that what it may hold is elsewhere, but for a loss that is accepted.
struct Expendable {
    accepted: Loss,
}

/// Returns the refusal of a change of nodes whose condition does not hold.
pub(super) fn refused(message: String) -> Failure {
    Failure::new(ErrorCode::NotEmpty, message)
}

/// Refuses while unreadable records may name the node.
fn check_known(Holdings { node, unknown, .. }: &Holdings) -> Result<(), Failure> {
    match unreadable_reason(unknown) {
        None => Ok(()),
        Some(why) => Err(refused(format!("node {node} may hold replicas that are needed: {why}"))),
    }
}

impl Condition for Empty {
    fn check_node(&self, core: &Core, node: NodeId, stored: &Node) -> Result<(), Failure> {
        let never_joined =
            stored.state == NodeState::Joining || stored.confirmed == RegistrationNumber(0);
        if never_joined {
            return Ok(());
        }
        let now = Instant::now();
        let registry = core.registry();
        let view = registry.view(node, now).filter(|_| registry.responsive(now).contains(&node));
        drop(registry);
        let Some(view) = view else {
            return Err(refused(format!(
                "node {node} does not respond, so it cannot be shown that it is empty; start it \
                 and try again, or, if it will never come back, forget it"
            )));
        };
        let chunks = view.disks.iter().map(|disk| disk.chunks).fold(0, u64::saturating_add);
        if chunks > 0 {
            let chunks = counted(chunks, "chunk");
            return Err(refused(format!("node {node} still holds {chunks}")));
        }
        if view.sessions > 0 {
            let sessions = view.sessions;
            return Err(refused(format!("chunks being written to node {node}: {sessions}")));
        }
        Ok(())
    }

    fn check_records(&self, holdings: &Holdings) -> Result<(), Obstacle> {
        let Holdings { node, chunks, .. } = holdings;
        if *chunks == 0 {
            return Ok(check_known(holdings)?);
        }
        let chunks = counted(*chunks, "chunk");
        Err(refused(format!("the metadata names {chunks} on node {node}")).into())
    }
}

impl Condition for Expendable {
    fn check_node(&self, core: &Core, node: NodeId, stored: &Node) -> Result<(), Failure> {
        if stored.maintenance_left(core.clock.now()).is_some() {
            return Err(refused(format!(
                "node {node} is in maintenance and expected back; end the maintenance first"
            )));
        }
        match core.registry().state(node, Instant::now()) {
            Some(NodeState::Lost) => Ok(()),
            state => {
                let state = state.unwrap_or(NodeState::Joining);
                Err(refused(format!(
                    "node {node} is {state}, and only a lost node can be forgotten; deregister it, \
                     or stop it and wait until it is lost"
                )))
            }
        }
    }

    fn check_records(&self, holdings: &Holdings) -> Result<(), Obstacle> {
        let Holdings { node, loss, listed, unknown_nodes, .. } = holdings;
        if *loss != Loss::default() && *loss != self.accepted {
            let (listed, note) = (listed.clone(), nodes::unreadable_nodes(unknown_nodes));
            return Err(Obstacle::Loss(Arc::new(NodeLoss { loss: *loss, listed, note })));
        }
        check_known(holdings)?;
        if loss.chunks > 0 {
            let (chunks, bytes) = (loss.chunks, loss.bytes);
            warn!(%node, chunks, bytes, "a lost datanode is forgotten, and what only it held");
        }
        Ok(())
    }
}

/// Removes a node for good if the condition holds and continues to hold while all chunks are
/// scanned; no replica on it can be added meanwhile.
async fn remove_if(
    core: &Core,
    caller: &Caller,
    node: NodeId,
    condition: &dyn Condition,
    checked: &AtomicU64,
) -> Result<(), Obstacle> {
    for _ in 0..TRIES {
        let Some(stored) = present(core, caller, node).await? else { return Ok(()) };
        condition.check_node(core, node, &stored)?;
        match try_remove(core, caller, node, &stored, condition, checked).await {
            Ok(true) => info!(%node, "a datanode was removed from the cluster"),
            // Another change was faster, perhaps another removal.
            Ok(false) => {}
            Err(obstacle) => {
                match core.namespace.set_leaving(&caller.scope(), node, false).await {
                    Ok(stored) => core.take_members(&[(node, stored)]),
                    Err(error) => {
                        let error = with_causes(&error);
                        warn!(%node, error, "a node that was not removed counts as leaving until it registers again");
                    }
                }
                return Err(obstacle);
            }
        }
    }
    Err(overtaken().into())
}

/// Checks whether a node could be removed now, and changes nothing.
async fn check(
    core: &Core,
    caller: &Caller,
    node: NodeId,
    condition: &dyn Condition,
    checked: &AtomicU64,
) -> Result<(), Obstacle> {
    for _ in 0..TRIES {
        let Some(stored) = present(core, caller, node).await? else { return Ok(()) };
        condition.check_node(core, node, &stored)?;
        if let Some(holdings) = holdings(core, caller, node, checked).await? {
            return condition.check_records(&holdings);
        }
    }
    Err(overtaken().into())
}

/// Returns the record of a node; `None` once it is removed.
async fn present(core: &Core, caller: &Caller, node: NodeId) -> Result<Option<Node>, Failure> {
    let stored = core.namespace.node(&caller.scope(), node).await;
    let stored = stored.map_err(|error| failure::of(&error))?;
    let stored = stored.ok_or_else(|| failure::of(&dfs_metadata::Error::UnknownNode(node)))?;
    core.take_members(&[(node, stored.clone())]);
    Ok((stored.state != NodeState::Removed).then_some(stored))
}

/// Scans all chunks for what a node holds. `None` when the result is outdated at its end.
async fn holdings(
    core: &Core,
    caller: &Caller,
    node: NodeId,
    checked: &AtomicU64,
) -> Result<Option<Holdings>, Failure> {
    let (namespace, scope) = (&core.namespace, caller.scope());
    let liveness = || core.registry().liveness(Instant::now());
    let scan = namespace.begin_holdings_scan(&scope, node, &liveness()).await;
    let mut scan = scan.map_err(|error| failure::of(&error))?;
    loop {
        let is_over = namespace.continue_holdings_scan(&mut scan).await;
        checked.store(scan.checked(), Ordering::Relaxed);
        if is_over.map_err(|error| failure::of(&error))? {
            break;
        }
        tokio::task::yield_now().await;
    }
    let holdings = namespace.end_holdings_scan(scan, &liveness()).await;
    holdings.map_err(|error| failure::of(&error))
}

/// Makes one attempt. Returns `false` when the node was changed meanwhile.
async fn try_remove(
    core: &Core,
    caller: &Caller,
    node: NodeId,
    stored: &Node,
    condition: &dyn Condition,
    checked: &AtomicU64,
) -> Result<bool, Obstacle> {
    let left = core.namespace.set_leaving(&caller.scope(), node, true).await;
    core.take_members(&[(node, left.map_err(|error| failure::of(&error))?)]);
    let Some(holdings) = holdings(core, caller, node, checked).await? else { return Ok(false) };
    condition.check_records(&holdings)?;
    // Time has passed during the scan.
    condition.check_node(core, node, stored)?;
    let removed = core.namespace.remove_node(&caller.scope(), &holdings).await;
    Ok(removed.map_err(|error| failure::of(&error))?)
}

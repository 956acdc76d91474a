//! Candidates for chunks, and the errors when there are too few.

use std::time::Duration;

use dfs_metadata::namespace::UploadPlan;
use dfs_metadata::placement::{Candidate, CapacityWeighted, NodeSelector, RandomNodes, RoundRobin};
use dfs_proto::Failure;
use dfs_types::{ByteSize, ErrorCode};
use tokio::time::Instant;

use crate::core::Core;
use crate::node_liveness::{NodeCounts, View};
use crate::settings::Placement;

/// Creates the node selector of a setting.
pub(crate) fn selector(placement: Placement) -> Box<dyn NodeSelector> {
    match placement {
        Placement::CapacityWeighted => Box::<CapacityWeighted>::default(),
        Placement::Random => Box::<RandomNodes>::default(),
        Placement::RoundRobin => Box::<RoundRobin>::default(),
    }
}

/// Returns the candidates for chunks of at most `bytes`.
pub(crate) fn candidates(views: &[View], bytes: u64) -> Vec<Candidate> {
    views
        .iter()
        .filter(|view| view.takes_chunks())
        .map(|view| Candidate {
            node: view.node,
            zone: view.member.zone.clone(),
            host: view.member.host.clone(),
            free: free_for(view, bytes),
        })
        .collect()
}

/// Returns the free bytes used for selection. Recent plans make a node less likely, so that a burst
/// of plans does not pile up on it, but never rule it out: most plans use less than they may, and
/// the node itself knows best when it is full.
fn free_for(view: &View, bytes: u64) -> u64 {
    if view.is_full {
        return 0;
    }
    view.free.saturating_sub(view.planned).max(view.free.min(bytes.saturating_add(1)))
}

/// Converts an error that kept an upload from being planned.
pub(crate) fn refusal(core: &Core, error: &dfs_metadata::Error, bytes: u64) -> Failure {
    let now = Instant::now();
    let (node_counts, is_gathering) = {
        let registry = core.registry();
        (registry.node_counts(bytes, now), registry.is_gathering(now))
    };
    let (dfs_metadata::Error::NotEnoughNodes { found, wanted }
    | dfs_metadata::Error::NoSpace { found, wanted, .. }) = *error
    else {
        return crate::failure::of(error);
    };
    if is_gathering && node_counts.awaited > 0 {
        return gathering(core, node_counts);
    }
    let NodeCounts { known, active, full, .. } = node_counts;
    let room = ByteSize(bytes);
    match error.code() {
        ErrorCode::NoSpace => {
            core.background.note_refusal(now);
            let message = format!(
                "too few datanodes have room for {room} more: {found} of the {wanted} needed \
                 ({known} known, {active} active, {full} of them full); delete something, or add \
                 disks or datanodes"
            );
            Failure::new(ErrorCode::NoSpace, message)
        }
        code => Failure::new(
            code,
            format!(
                "too few datanodes can take a chunk: {found} of the {wanted} needed ({known} \
                 known, {active} active, {full} of them full); start datanodes, or see `dfs status`"
            ),
        )
        .retry_after(core.settings.heartbeat_interval()),
    }
}

/// Refuses a plan with fewer nodes than replicas wanted just after the start, when heartbeats of
/// some nodes may not have arrived yet.
pub(crate) fn check_not_early(core: &Core, plan: &UploadPlan) -> Result<(), Failure> {
    let wanted = usize::from(plan.replication_factor);
    if plan.chunks.iter().all(|chunk| chunk.nodes.len() >= wanted) {
        return Ok(());
    }
    let now = Instant::now();
    let registry = core.registry();
    let node_counts = registry.node_counts(0, now);
    let is_early = registry.listened(now) < core.settings.heartbeat_interval() * 3;
    drop(registry);
    if is_early && node_counts.awaited > 0 { Err(gathering(core, node_counts)) } else { Ok(()) }
}

fn gathering(core: &Core, node_counts: NodeCounts) -> Failure {
    let message = format!(
        "the coordinator has just started and is waiting for heartbeats of {} of {} datanodes; try \
         again in a moment",
        node_counts.awaited, node_counts.known
    );
    let retry_after = core.settings.heartbeat_interval().max(Duration::from_millis(50));
    Failure::new(ErrorCode::Unavailable, message).retry_after(retry_after)
}

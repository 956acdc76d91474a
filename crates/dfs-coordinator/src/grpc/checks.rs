//! The call that compares disks with records.

use dfs_proto::wire::WireId as _;
use dfs_proto::{Failure, v1};
use dfs_transport::Caller;
use dfs_types::{ChunkId, ErrorCode};
use tokio::time::Instant;

use super::admin::check_cluster;
use super::{holder, workers};
use crate::checks::{CheckReport, CheckState, DamagedChunk};
use crate::core::Core;

/// Begins a comparison, or returns the progress of one. Executed by the holder of the worker lease.
pub(super) async fn run(
    core: &Core,
    (_, mut request): (Caller, v1::CheckReplicasRequest),
) -> Result<v1::CheckReplicasResponse, Failure> {
    let is_relayed = core.is_from_peer(&mut request)?;
    check_cluster(core, &request.cluster_id)?;
    if core.background.lease.grant().is_none() {
        if is_relayed {
            return Err(workers::no_holder());
        }
        let request = core.peer_order(request);
        let relayed =
            holder::call(core, async move |mut admin| admin.check_replicas(request).await).await;
        return relayed.unwrap_or_else(|| Err(workers::no_holder()));
    }
    let checks = &core.background.checks;
    let check = match request.check {
        0 => {
            // 0 stands for none.
            let check = 1 + core.random.below(u64::MAX);
            if !checks.request(check) {
                let message = "too many comparisons are waiting; try again later";
                return Err(Failure::new(ErrorCode::Busy, message));
            }
            check
        }
        check => check,
    };
    let state = checks.state(check).ok_or_else(|| {
        let message = "the coordinator that did the background work has changed; start again";
        Failure::new(ErrorCode::Stale, message)
    })?;
    let (report, is_done) = match state {
        CheckState::Waiting => Default::default(),
        CheckState::Running(report) => (report, false),
        CheckState::Done(report) => (report, true),
    };
    Ok(response(check, &report, is_done))
}

/// Returns the state of the comparison for the status.
pub(super) fn status(core: &Core) -> v1::ReconciliationStatus {
    let overview = core.background.checks.overview(Instant::now());
    v1::ReconciliationStatus {
        progress: overview.progress,
        last_whole_ms: overview.last_whole.map(|ago| ago.as_millis() as u64),
        orphans: overview.report.orphans,
        orphan_bytes: overview.report.orphan_bytes,
    }
}

fn response(check: u64, report: &CheckReport, is_done: bool) -> v1::CheckReplicasResponse {
    let damaged = |(chunk, damaged): (&ChunkId, &DamagedChunk)| v1::DamagedChunk {
        chunk_id: chunk.to_wire(),
        inode: damaged.inode.0,
        is_missing: damaged.is_missing,
        is_lost: damaged.is_lost,
    };
    let damaged = report.damaged.iter().filter(|_| is_done).map(damaged);
    v1::CheckReplicasResponse {
        check,
        is_done,
        records: report.records,
        skipped: report.skipped,
        gone: report.gone,
        back: report.back,
        orphans: report.orphans,
        orphan_bytes: report.orphan_bytes,
        deleted_orphans: report.deleted_orphans,
        surplus: report.surplus,
        deleted_surplus: report.deleted_surplus,
        adopted: report.adopted,
        missing_chunks: report.missing_chunks,
        degraded_chunks: report.degraded_chunks,
        damaged: damaged.collect(),
    }
}

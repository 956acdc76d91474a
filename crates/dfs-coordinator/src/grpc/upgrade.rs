//! The calls of `Admin` about the write level.

use dfs_metadata::namespace::UpgradeStatus;
use dfs_proto::{Failure, v1};
use dfs_transport::Caller;
use tracing::info;

use super::admin::check_cluster;
use crate::core::Core;
use crate::failure;

pub(super) async fn status(
    core: &Core,
    (caller, _): (Caller, v1::UpgradeStatusRequest),
) -> Result<v1::UpgradeStatusResponse, Failure> {
    let status = core.namespace.upgrade_status(&caller.scope()).await;
    status.map(answer).map_err(|error| failure::of(&error))
}

pub(super) async fn finalize(
    core: &Core,
    (caller, request): (Caller, v1::FinalizeUpgradeRequest),
) -> Result<v1::UpgradeStatusResponse, Failure> {
    check_cluster(core, &request.cluster_id)?;
    let status = core.namespace.finalize_upgrade(&caller.scope()).await;
    let status = status.map_err(|error| failure::of(&error))?;
    if status.wanted > status.written {
        info!(wanted = status.wanted.0, "finalizing the upgrade was requested");
    }
    Ok(answer(status))
}

fn answer(status: UpgradeStatus) -> v1::UpgradeStatusResponse {
    let UpgradeStatus { written, least, wanted, newest, blocked_by } = status;
    v1::UpgradeStatusResponse {
        written: written.0,
        least: least.0,
        wanted: wanted.0,
        newest: newest.0,
        blocked_by,
    }
}

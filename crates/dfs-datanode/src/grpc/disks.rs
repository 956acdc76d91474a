//! Orders that concern whole disks.

use dfs_proto::{v1, wire};
use dfs_types::DiskId;

use crate::Error;
use crate::node::Node;
use crate::orders::Authorised;

/// Ends the return of a disk.
pub(super) async fn settle(
    node: &Node,
    order: Authorised<v1::SettleDiskRequest>,
) -> Result<v1::SettleDiskResponse, Error> {
    let disk: DiskId = wire::id("disk_id", &order.into_inner().disk_id)?;
    node.store.settle_disk(disk).await?;
    node.tell();
    Ok(v1::SettleDiskResponse {})
}

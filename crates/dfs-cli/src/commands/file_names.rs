//! Names of files that are known by their inodes.

use std::collections::BTreeSet;

use dfs_client::WalkEntry;
use dfs_types::{DfsPath, InodeId};
use futures_util::StreamExt as _;

use crate::context::Context;
use crate::error::Result;

/// Finds files by a walk over all names, which ends once all are found. Those without a name, such
/// as deleted ones that can be restored, are not found.
pub(super) async fn find(cx: &Context, mut inodes: BTreeSet<InodeId>) -> Result<Vec<WalkEntry>> {
    let mut found = Vec::new();
    let root = DfsPath::new("/").expect("the root is a path");
    let mut walk = cx.client.walk(&root);
    while !inodes.is_empty()
        && let Some(entry) = walk.next().await
    {
        let entry = entry?;
        if inodes.remove(&entry.stat.inode) {
            found.push(entry);
        }
    }
    Ok(found)
}

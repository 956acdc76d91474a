//! Deleting.

use dfs_types::{DfsPath, Timestamp};

use super::{Namespace, Repeat};
use crate::Error;

/// Deletes a file, symlink, directory or tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// What; a symlink itself.
    pub path: DfsPath,
    /// A directory with all below it; without this it must be empty.
    pub recursive: bool,
    /// Without a time in which it could be restored.
    pub now: bool,
}

impl Namespace {
    /// Unlinks in one commit, whatever lies below. Returns until when it can be restored; `None`
    /// with `now`.
    pub async fn delete(
        &self,
        request: &Delete,
        repeat: Option<&Repeat>,
    ) -> Result<Option<Timestamp>, Error> {
        let _ = (request, repeat);
        todo!()
    }
}

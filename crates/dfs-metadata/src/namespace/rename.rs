//! Renaming.

use dfs_types::DfsPath;

use super::{Namespace, Repeat};
use crate::Error;

/// Renames a file, symlink or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// What; a symlink itself.
    pub from: DfsPath,
    /// Its new path.
    pub to: DfsPath,
    /// Refuses to replace anything.
    pub no_replace: bool,
}

impl Namespace {
    /// Renames in one step, replacing as rename(2) does: a file by a file, an empty directory by
    /// a directory. Onto itself it does nothing. What was replaced can be restored for a while.
    pub async fn rename(&self, request: &Rename, repeat: Option<&Repeat>) -> Result<(), Error> {
        let _ = (request, repeat);
        todo!()
    }
}

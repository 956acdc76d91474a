//! Bringing back what was deleted or replaced.

use dfs_types::DfsPath;

use super::{FileStat, Namespace, Repeat};
use crate::Error;

/// Restores what was deleted or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelete {
    /// Where it was. Of several, the one deleted last.
    pub path: DfsPath,
    /// Where it shall be; where it was when not set.
    pub to: Option<DfsPath>,
}

impl Namespace {
    /// Restores it, with everything below it. Never replaces anything.
    pub async fn undelete(
        &self,
        request: &Undelete,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        let _ = (request, repeat);
        todo!()
    }
}

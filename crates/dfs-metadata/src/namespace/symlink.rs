//! Making symlinks.

use bytes::Bytes;
use dfs_types::{Attributes, DfsPath};

use super::{FileStat, Namespace, Repeat};
use crate::Error;

/// Makes a symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeSymlink {
    /// Where.
    pub path: DfsPath,
    /// What it points to: 1 to 4,095 bytes without NUL.
    pub target: Bytes,
    /// Owner, group, mtime.
    pub attributes: Attributes,
    /// Replaces a file or symlink of that name, never a directory.
    pub replace: bool,
}

impl Namespace {
    /// Makes a symlink.
    pub async fn make_symlink(
        &self,
        request: &MakeSymlink,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        let _ = (request, repeat);
        todo!()
    }
}

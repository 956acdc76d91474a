//! Changing attributes.

use dfs_types::{DfsPath, FileTime};

use super::{FileStat, Namespace, Repeat};
use crate::Error;

/// Changes attributes; what is not set stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAttributes {
    /// Of what.
    pub path: DfsPath,
    /// Of what a symlink at the end of the path leads to.
    pub follow: bool,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of the content.
    pub mtime: Option<FileTime>,
}

impl Namespace {
    /// Changes attributes and returns the inode as it is then.
    pub async fn set_attributes(
        &self,
        request: &SetAttributes,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        let _ = (request, repeat);
        todo!()
    }
}

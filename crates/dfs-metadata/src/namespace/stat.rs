//! Looking: stat and listing.

use bytes::Bytes;
use dfs_types::{Attributes, DfsPath, FileKind, InodeId, Name, Timestamp};

use super::Namespace;
use crate::Error;

/// An inode as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    /// Its number.
    pub inode: InodeId,
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a file or of a symlink's target; 0 for a directory.
    pub size: u64,
    /// Mode, owner, group, mtime.
    pub attributes: Attributes,
    /// Last change of the inode, by a coordinator's clock.
    pub ctime: Timestamp,
    /// Target of a symlink; empty for others.
    pub symlink_target: Bytes,
    /// Copies wanted of each chunk of a file; 0 for others.
    pub replication_factor: u8,
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// What has this path; a symlink at its end is followed.
    Path(DfsPath),
    /// What has this number, also after it was unlinked, until it is taken apart.
    Inode(InodeId),
}

/// A name in a directory and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Name,
    /// The inode, a symlink itself.
    pub stat: FileStat,
}

/// Some entries of a directory, in name order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPage {
    /// The directory; further pages are asked for by it.
    pub directory: InodeId,
    /// The entries.
    pub entries: Vec<DirectoryEntry>,
    /// Whether there are entries after the last of these.
    pub has_more: bool,
}

impl Namespace {
    /// Entries that a page has at most.
    pub const PAGE_LEN_MAX: usize = 1_000;

    /// Describes what has a path; with `follow`, what a symlink at its end leads to.
    pub async fn stat(&self, path: &DfsPath, follow: bool) -> Result<FileStat, Error> {
        let _ = (path, follow);
        todo!()
    }

    /// Lists entries of a directory with names greater than `after`, at most `limit` and
    /// [`Self::PAGE_LEN_MAX`]. What is there all the time while pages are fetched is listed
    /// exactly once.
    pub async fn list_directory(
        &self,
        directory: &Target,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<DirectoryPage, Error> {
        let _ = (directory, after, limit);
        todo!()
    }
}

//! What a call is about.

use std::fmt;

use dfs_types::{DfsPath, InodeId};

/// A file, by its path or by its inode.
///
/// An inode stands for one version of a file for as long as that exists, whatever becomes of its
/// path: a rename does not change it, and a file that replaces another has an inode of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Whatever has this path when the call takes place.
    Path(DfsPath),
    /// This inode.
    Inode(InodeId),
}

impl From<&DfsPath> for Target {
    fn from(path: &DfsPath) -> Self {
        Self::Path(path.clone())
    }
}

impl From<DfsPath> for Target {
    fn from(path: DfsPath) -> Self {
        Self::Path(path)
    }
}

impl From<InodeId> for Target {
    fn from(inode: InodeId) -> Self {
        Self::Inode(inode)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Inode(inode) => write!(f, "inode {}", inode.0),
        }
    }
}

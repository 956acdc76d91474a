//! Targets of calls, and their required states.

use std::fmt;

use crate::{DfsPath, Incarnation, InodeId, Name, Revision};

/// The target of a call.
///
/// An inode identifies one version of a file, whatever happens to its path: a rename keeps it, and
/// a file that replaces another has a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A path. Symlinks on the way to its end are followed.
    Path(DfsPath),
    /// An inode, even after it was unlinked, until it is reaped.
    Inode(InodeId),
    /// An entry of a directory. A symlink there is not followed.
    Child {
        /// The directory.
        parent: InodeId,
        /// The name in it.
        name: Name,
    },
}

impl Target {
    /// Returns the entry `name` of the directory `parent`.
    pub fn child(parent: InodeId, name: &Name) -> Self {
        Self::Child { parent, name: name.clone() }
    }
}

impl From<DfsPath> for Target {
    fn from(path: DfsPath) -> Self {
        Self::Path(path)
    }
}

impl From<&DfsPath> for Target {
    fn from(path: &DfsPath) -> Self {
        Self::Path(path.clone())
    }
}

impl From<InodeId> for Target {
    fn from(inode: InodeId) -> Self {
        Self::Inode(inode)
    }
}

impl From<&Target> for Target {
    fn from(target: &Target) -> Self {
        target.clone()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Inode(inode) => write!(f, "inode {inode}"),
            Self::Child { parent, name } => write!(f, "{name} in directory {parent}"),
        }
    }
}

/// A state of an inode. Two are equal only if nothing about the inode changed in between, for a
/// directory including its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Change {
    /// Incarnation of the metadata that numbered the revision.
    pub incarnation: Incarnation,
    /// Revision of the commit that last changed the inode.
    pub revision: Revision,
}

/// A required state of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precondition {
    /// The name is free.
    Absent,
    /// The name refers to this inode.
    Inode {
        /// The inode.
        inode: InodeId,
        /// The required state of the inode; any when not set.
        change: Option<Change>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_printed_in_messages() {
        let name = Name::new(&b"a"[..]).unwrap();
        let inode = InodeId(7);
        assert_eq!(Target::from(DfsPath::new("/x").unwrap()).to_string(), "/x");
        assert_eq!(Target::from(inode).to_string(), "inode 7");
        assert_eq!(Target::child(inode, &name).to_string(), "a in directory 7");
    }
}

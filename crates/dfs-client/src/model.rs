//! Results of calls, and changes of attributes.

use bytes::Bytes;
use dfs_proto::v1;
use dfs_proto::wire::{self, FieldError};
use dfs_types::{Attributes, Change, FileKind, FileTime, InodeId, Name};

/// A snapshot of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    /// Inode number, never reused within a cluster.
    pub inode: InodeId,
    /// Kind of the inode.
    pub kind: FileKind,
    /// Bytes of a file or of a symlink's target; 0 for a directory.
    pub size: u64,
    /// Mode, owner, group, mtime.
    pub attributes: Attributes,
    /// Last change of the inode, by the clock of a coordinator.
    pub ctime: FileTime,
    /// Time of creation, by the clock of a coordinator.
    pub born: FileTime,
    /// Number of names of a file; 1 for a directory, whose entries are not counted.
    pub nlink: u32,
    /// Device that a device file names; 0 for others.
    pub rdev: u64,
    /// Target of a symlink; empty for others.
    pub symlink_target: Bytes,
    /// Replicas wanted of each chunk of a file, or of new files in a directory; 0 for others.
    pub replication_factor: u32,
    /// Whether they follow the default of the cluster.
    pub has_default_replication: bool,
    /// Version of the inode, and of the entries of a directory: equal versions mean that nothing
    /// changed in between.
    pub change: Change,
    /// Number of its extended attributes.
    pub xattrs: u32,
}

impl FileStat {
    pub(crate) fn from_wire(stat: Option<v1::FileStat>) -> Result<Self, FieldError> {
        let stat = wire::required("stat", stat)?;
        Ok(Self {
            inode: wire::inode("stat.inode", stat.inode)?,
            kind: wire::file_kind("stat.kind", stat.kind)?,
            size: stat.size,
            attributes: wire::attributes("stat.attributes", stat.attributes, FileTime::default())?,
            ctime: wire::file_time("stat.ctime", stat.ctime.unwrap_or_default())?,
            born: wire::file_time("stat.born", stat.born.unwrap_or_default())?,
            nlink: stat.nlink,
            rdev: stat.rdev,
            symlink_target: stat.symlink_target,
            replication_factor: stat.replication_factor,
            has_default_replication: stat.policy == 0,
            change: wire::change(stat.change.unwrap_or_default()),
            xattrs: stat.xattrs,
        })
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Name,
    /// The inode it refers to.
    pub stat: FileStat,
}

/// Handling of a symlink at the end of a path. Earlier ones are always followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The path refers to the target.
    Yes,
    /// The path refers to the symlink itself.
    No,
}

/// The attributes to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttributeChanges {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of the content.
    pub mtime: Option<FileTime>,
}

impl AttributeChanges {
    /// Changes all of them.
    pub fn all(attributes: &Attributes) -> Self {
        Self {
            mode: Some(attributes.mode),
            uid: Some(attributes.uid),
            gid: Some(attributes.gid),
            mtime: Some(attributes.mtime),
        }
    }
}

//! The description of an inode that calls return; kept for repeats as part of `r/`.

use bytes::Bytes;
use dfs_types::{Attributes, Change, FileKind, Incarnation, InodeId, Revision, Timestamp};

use crate::codec::{Reader, Record, Writer};

/// Public description of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    /// Number.
    pub inode: InodeId,
    /// Kind.
    pub kind: FileKind,
    /// Bytes of a file or of a symlink's target; 0 for a directory.
    pub size: u64,
    /// Mode, owner, group, mtime.
    pub attributes: Attributes,
    /// Last change of the inode, by a coordinator's clock.
    pub ctime: Timestamp,
    /// Creation time, by a coordinator's clock.
    pub born: Timestamp,
    /// Number of names; always 1 for a directory.
    pub nlink: u32,
    /// Device number of a device file; 0 for others.
    pub rdev: u64,
    /// Target of a symlink; empty for others.
    pub symlink_target: Bytes,
    /// Replicas wanted of each chunk of a file, or of new files in a directory; 0 for others.
    pub replication_factor: u8,
    /// Number of the policy that says so; 0 for the default of the cluster.
    pub policy: u32,
    /// State of the inode; for a directory, including its entries.
    pub change: Change,
    /// Number of its extended attributes.
    pub xattrs: u32,
}

impl Record for FileStat {
    fn write(&self, out: &mut Writer) {
        out.inode(self.inode);
        out.kind(self.kind);
        out.number(self.size);
        out.attributes(&self.attributes);
        out.time(self.ctime);
        out.time(self.born);
        out.u32(self.nlink);
        out.number(self.rdev);
        out.bytes(&self.symlink_target);
        out.u8(self.replication_factor);
        out.u32(self.policy);
        out.number(self.change.incarnation.0);
        out.number(self.change.revision.0);
        out.u32(self.xattrs);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            inode: input.inode()?,
            kind: input.kind()?,
            size: input.number()?,
            attributes: input.attributes()?,
            ctime: input.time()?,
            born: input.time()?,
            nlink: input.u32()?,
            rdev: input.number()?,
            symlink_target: Bytes::copy_from_slice(input.bytes()?),
            replication_factor: input.u8()?,
            policy: input.u32()?,
            change: Change {
                incarnation: Incarnation(input.number()?),
                revision: Revision(input.number()?),
            },
            xattrs: input.u32()?,
        })
    }
}

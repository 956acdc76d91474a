//! What a call that makes or finds an inode answers with; kept for repeats as part of `r/`.

use bytes::Bytes;
use dfs_types::{Attributes, FileKind, InodeId, Timestamp};

use crate::codec::{Reader, Record, Writer};

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
    /// Replicas wanted of each chunk of a file; 0 for others.
    pub replication_factor: u8,
}

impl Record for FileStat {
    fn write(&self, out: &mut Writer) {
        out.inode(self.inode);
        out.kind(self.kind);
        out.number(self.size);
        out.attributes(&self.attributes);
        out.time(self.ctime);
        out.bytes(&self.symlink_target);
        out.u8(self.replication_factor);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            inode: input.inode()?,
            kind: input.kind()?,
            size: input.number()?,
            attributes: input.attributes()?,
            ctime: input.time()?,
            symlink_target: Bytes::copy_from_slice(input.bytes()?),
            replication_factor: input.u8()?,
        })
    }
}

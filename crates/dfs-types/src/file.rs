//! What a name in a directory can be.

use crate::FileTime;

/// The kind of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// Bytes.
    File,
    /// Names.
    Directory,
    /// A target to be followed.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, which its `rdev` names.
    CharacterDevice,
    /// A block device, which its `rdev` names.
    BlockDevice,
}

impl FileKind {
    /// Returns whether it is a name without content of its own: a pipe, socket or device.
    pub fn is_special(self) -> bool {
        match self {
            Self::File | Self::Directory | Self::Symlink => false,
            Self::Fifo | Self::Socket | Self::CharacterDevice | Self::BlockDevice => true,
        }
    }
}

/// What is kept of a file beside its bytes. `mode` holds the permission bits alone (`0o7777`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: FileTime,
}

impl Attributes {
    /// The bits of `mode` that are kept.
    pub const MODE_MASK: u32 = 0o7777;
}

//! Kinds and attributes of inodes.

use crate::FileTime;

/// The kind of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, identified by `rdev`.
    CharacterDevice,
    /// A block device, identified by `rdev`.
    BlockDevice,
}

impl FileKind {
    /// Its name in output and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharacterDevice => "character_device",
            Self::BlockDevice => "block_device",
        }
    }

    /// Returns whether it is a name without stored content: a pipe, socket or device.
    pub fn is_special(self) -> bool {
        match self {
            Self::File | Self::Directory | Self::Symlink => false,
            Self::Fifo | Self::Socket | Self::CharacterDevice | Self::BlockDevice => true,
        }
    }
}

/// Attributes of a file. `mode` holds only the permission bits (`0o7777`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of content.
    pub mtime: FileTime,
}

impl Attributes {
    /// The bits of `mode` that are stored.
    pub const MODE_MASK: u32 = 0o7777;
}

//! Inodes and names: `i/`, `d/`, `t/`, `x/`.

use bytes::Bytes;
use dfs_types::{Attributes, ChunkId, FileKind, FileTime, InodeId, Timestamp};

#[cfg(feature = "pretend-level-2")]
use crate::codec::Field;
use crate::codec::{Reader, Record, Writer};
#[cfg(feature = "pretend-level-2")]
use dfs_types::Level;

/// `i/`: a file, directory or symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    /// For a directory, mtime is the one of its [`Times`].
    pub(crate) attributes: Attributes,
    pub(crate) ctime: Timestamp,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    File(File),
    Directory(Directory),
    Symlink { target: Bytes },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) size: u64,
    /// Replicas wanted of each chunk.
    pub(crate) replication: u8,
    /// What its writer cut it by: a hint for later ones. Extents may have any length.
    pub(crate) chunk_size: u64,
    /// The extent of a file that has one; those of a longer file lie under `x/`.
    pub(crate) single: Option<Extent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) parent: InodeId,
    pub(crate) link: Link,
}

/// Whether a directory can be reached from the root. What lies below an unlinked one stays
/// `Linked`, as its path from there is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Linked,
    /// Lies under `o/`; can be restored.
    Unlinked,
    /// Is being taken apart; nothing may be put into it any more.
    Reaping,
}

/// `d/`: a name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) inode: InodeId,
    pub(crate) kind: FileKind,
}

/// `t/`: what every change of a directory's entries writes, blindly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) mtime: FileTime,
    pub(crate) ctime: Timestamp,
}

/// `x/`: a piece of a file in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) length: u64,
    pub(crate) chunk: ChunkId,
    pub(crate) chunk_offset: u64,
}

impl Inode {
    pub(crate) fn kind(&self) -> FileKind {
        match self.content {
            Content::File(_) => FileKind::File,
            Content::Directory(_) => FileKind::Directory,
            Content::Symlink { .. } => FileKind::Symlink,
        }
    }

    pub(crate) fn directory(&self) -> Option<Directory> {
        match self.content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// The same directory, with something else said of its place.
    pub(crate) fn with_directory(&self, directory: Directory) -> Self {
        Self { content: Content::Directory(directory), ..self.clone() }
    }
}

impl Times {
    pub(crate) fn now(now: Timestamp) -> Self {
        Self { mtime: now.into(), ctime: now }
    }
}

impl Record for Inode {
    fn write(&self, out: &mut Writer) {
        out.kind(self.kind());
        out.attributes(&self.attributes);
        out.time(self.ctime);
        match &self.content {
            Content::File(file) => {
                out.number(file.size);
                out.u8(file.replication);
                out.number(file.chunk_size);
                out.option(file.single.as_ref(), |out, extent| extent.write(out));
            }
            Content::Directory(directory) => {
                out.inode(directory.parent);
                out.u8(match directory.link {
                    Link::Linked => 0,
                    Link::Unlinked => 1,
                    Link::Reaping => 2,
                });
            }
            Content::Symlink { target } => out.bytes(target),
        }
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let kind = input.kind()?;
        let attributes = input.attributes()?;
        let ctime = input.time()?;
        let content = match kind {
            FileKind::File => Content::File(File {
                size: input.number()?,
                replication: input.u8()?,
                chunk_size: input.number()?,
                single: input.option(Extent::read)?,
            }),
            FileKind::Directory => Content::Directory(Directory {
                parent: input.inode()?,
                link: match input.u8()? {
                    0 => Link::Linked,
                    1 => Link::Unlinked,
                    2 => Link::Reaping,
                    _ => return None,
                },
            }),
            FileKind::Symlink => {
                Content::Symlink { target: Bytes::copy_from_slice(input.bytes()?) }
            }
        };
        Some(Self { attributes, ctime, content })
    }
}

impl Record for Entry {
    fn write(&self, out: &mut Writer) {
        out.kind(self.kind);
        out.inode(self.inode);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { kind: input.kind()?, inode: input.inode()? })
    }
}

/// What a build that plays two releases writes from level 2 on.
#[cfg(feature = "pretend-level-2")]
const PRETEND: Field = Field::since(0, Level(2));

impl Record for Times {
    #[cfg(feature = "pretend-level-2")]
    const OPTIONAL: &'static [Field] = &[PRETEND];

    fn write(&self, out: &mut Writer) {
        #[cfg(feature = "pretend-level-2")]
        out.optional(|fields| fields.flag(PRETEND, true));
        out.file_time(self.mtime);
        out.time(self.ctime);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        #[cfg(feature = "pretend-level-2")]
        input.optional(Self::OPTIONAL)?;
        Some(Self { mtime: input.file_time()?, ctime: input.time()? })
    }
}

impl Record for Extent {
    fn write(&self, out: &mut Writer) {
        out.number(self.length);
        out.fixed(&self.chunk.to_bytes());
        out.number(self.chunk_offset);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { length: input.number()?, chunk: input.chunk()?, chunk_offset: input.number()? })
    }
}

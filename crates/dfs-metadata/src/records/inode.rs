//! Inodes: `i/`, and the times of directories: `t/`.

use bytes::Bytes;
use dfs_types::{Attributes, CHUNK_SIZE_DEFAULT, FileKind, FileTime, InodeId, Timestamp};

use super::extent::Extent;
use super::policy::PolicyLabel;
use super::xattrs::Xattrs;
use crate::codec::{Field, Reader, Record, Writer};

/// A file, directory, symlink or special file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    /// The mtime of a directory is in its [`Times`].
    pub(crate) attributes: Attributes,
    pub(crate) ctime: Timestamp,
    /// Creation time.
    pub(crate) born: Timestamp,
    /// Entries that refer to it.
    pub(crate) links: u32,
    /// Deleted names of it that can be restored.
    pub(crate) held: u32,
    /// The volume it belongs to.
    pub(crate) volume: u32,
    /// Epoch of its volume when it was written.
    pub(crate) epoch: u32,
    /// How its content is stored, and how new entries of a directory are.
    pub(crate) policy: PolicyLabel,
    pub(crate) xattrs: Xattrs,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    File(File),
    Directory(Directory),
    Symlink { target: Bytes },
    Fifo,
    Socket,
    CharacterDevice { rdev: u64 },
    BlockDevice { rdev: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) size: u64,
    /// Chunk size its writer used: a hint for later writers. Extents may have any length.
    pub(crate) chunk_size: u64,
    /// The extent of a file with only one; those of a longer file are under `x/`.
    pub(crate) single: Option<Extent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) parent: InodeId,
    pub(crate) link: Link,
}

/// State of a directory's link to the root. Directories below an unlinked one stay `Linked`, as
/// their path from there is intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Linked,
    /// Listed under `o/`; can be restored.
    Unlinked,
    /// Being reaped; closed to new entries.
    Reaping,
}

/// `t/`: written without a condition by every change of a directory's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) mtime: FileTime,
    pub(crate) ctime: Timestamp,
}

impl Inode {
    /// Returns a new inode.
    pub(crate) fn new(attributes: Attributes, now: Timestamp, content: Content) -> Self {
        Self {
            attributes,
            ctime: now,
            born: now,
            links: 1,
            held: 0,
            volume: 0,
            epoch: 0,
            policy: PolicyLabel::default(),
            xattrs: Xattrs::default(),
            content,
        }
    }

    pub(crate) fn kind(&self) -> FileKind {
        match self.content {
            Content::File(_) => FileKind::File,
            Content::Directory(_) => FileKind::Directory,
            Content::Symlink { .. } => FileKind::Symlink,
            Content::Fifo => FileKind::Fifo,
            Content::Socket => FileKind::Socket,
            Content::CharacterDevice { .. } => FileKind::CharacterDevice,
            Content::BlockDevice { .. } => FileKind::BlockDevice,
        }
    }

    /// Returns the device number of a device file; 0 for others.
    pub(crate) fn rdev(&self) -> u64 {
        match self.content {
            Content::CharacterDevice { rdev } | Content::BlockDevice { rdev } => rdev,
            _ => 0,
        }
    }

    pub(crate) fn directory(&self) -> Option<Directory> {
        match self.content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Returns the directory with another link state.
    pub(crate) fn with_directory(&self, directory: Directory) -> Self {
        Self { content: Content::Directory(directory), ..self.clone() }
    }
}

impl Times {
    pub(crate) fn now(now: Timestamp) -> Self {
        Self { mtime: now.into(), ctime: now }
    }
}

// Most files have only the first six, so that their mask takes one byte.
const MTIME: Field = Field::new(0);
const SIZE: Field = Field::new(1);
const SINGLE: Field = Field::new(2);
const MODE: Field = Field::new(3);
const UID: Field = Field::new(4);
const GID: Field = Field::new(5);
const KIND: Field = Field::new(6);
const BORN: Field = Field::new(7);
const CHUNK_SIZE: Field = Field::new(8);
/// With [`SINGLE`]: the extent is not a whole chunk as long as the file.
const PART: Field = Field::new(9);
const PARENT: Field = Field::new(10);
const LINK: Field = Field::new(11);
const SYMLINK: Field = Field::new(12);
const RDEV: Field = Field::new(13);
const XATTRS: Field = Field::new(14);
const LINKS: Field = Field::new(15);
const HELD: Field = Field::new(16);
const VOLUME: Field = Field::new(17);
const EPOCH: Field = Field::new(18);
const POLICY: Field = Field::new(19);
const POLICY_CHANGE: Field = Field::new(20);

/// Returns the usual permission bits of a kind.
fn mode_default(kind: FileKind) -> u32 {
    match kind {
        FileKind::Directory => 0o755,
        FileKind::Symlink => 0o777,
        _ => 0o644,
    }
}

/// The file fields of an inode without content.
const EMPTY_FILE: File = File { size: 0, chunk_size: CHUNK_SIZE_DEFAULT, single: None };

/// Returns the fields that an inode of this kind cannot have.
fn foreign_fields(kind: FileKind) -> &'static [Field] {
    match kind {
        FileKind::File => &[PARENT, LINK, SYMLINK, RDEV],
        FileKind::Directory => &[SIZE, SINGLE, CHUNK_SIZE, PART, SYMLINK, RDEV],
        FileKind::Symlink => &[SIZE, SINGLE, CHUNK_SIZE, PART, PARENT, LINK, RDEV],
        FileKind::CharacterDevice | FileKind::BlockDevice => {
            &[SIZE, SINGLE, CHUNK_SIZE, PART, PARENT, LINK, SYMLINK]
        }
        FileKind::Fifo | FileKind::Socket => {
            &[SIZE, SINGLE, CHUNK_SIZE, PART, PARENT, LINK, SYMLINK, RDEV]
        }
    }
}

impl Record for Inode {
    const OPTIONAL: &'static [Field] = &[
        MTIME,
        SIZE,
        SINGLE,
        MODE,
        UID,
        GID,
        KIND,
        BORN,
        CHUNK_SIZE,
        PART,
        PARENT,
        LINK,
        SYMLINK,
        RDEV,
        XATTRS,
        LINKS,
        HELD,
        VOLUME,
        EPOCH,
        POLICY,
        POLICY_CHANGE,
    ];

    fn write(&self, out: &mut Writer) {
        let Self { attributes, ctime, born, links, held, volume, epoch, policy, xattrs, content } =
            self;
        let Attributes { mode, uid, gid, mtime } = attributes;
        let kind = self.kind();
        let (mut file, mut target) = (&EMPTY_FILE, None);
        match content {
            Content::File(found) => file = found,
            Content::Symlink { target: found } => target = Some(found),
            _ => {}
        }
        let directory = self.directory();
        let link = directory.map_or(Link::Linked, |directory| directory.link);
        let part = file.single.filter(|found| *found != Extent::whole(found.chunk, file.size));
        // Times are relative to ctime, which they are mostly close to.
        let ctime_seconds = FileTime::from(*ctime).seconds();
        out.optional(|fields| {
            fields.put(MTIME, *mtime != FileTime::from(*ctime), |out| {
                out.signed(mtime.seconds().wrapping_sub(ctime_seconds));
                out.fixed(&mtime.nanos().to_be_bytes());
            });
            fields.put(SIZE, file.size != 0, |out| out.number(file.size));
            fields.put_some(SINGLE, file.single, |out, found| out.fixed(&found.chunk.to_bytes()));
            fields.put(MODE, *mode != mode_default(kind), |out| out.u32(*mode));
            fields.put(UID, *uid != 0, |out| out.u32(*uid));
            fields.put(GID, *gid != 0, |out| out.u32(*gid));
            fields.put(KIND, kind != FileKind::File, |out| out.kind(kind));
            fields.put(BORN, born != ctime, |out| {
                out.signed(ctime.millis().wrapping_sub(born.millis()) as i64);
            });
            fields.put(CHUNK_SIZE, file.chunk_size != CHUNK_SIZE_DEFAULT, |out| {
                out.number(file.chunk_size);
            });
            fields.put_some(PART, part, |out, extent| {
                out.number(extent.length);
                out.number(extent.chunk_offset);
                out.u32(extent.epoch);
            });
            fields.put_some(PARENT, directory, |out, directory| out.inode(directory.parent));
            fields.put(LINK, link != Link::Linked, |out| out.bool(link == Link::Reaping));
            fields.put_some(SYMLINK, target, |out, target| out.bytes(target));
            fields.put(RDEV, self.rdev() != 0, |out| out.number(self.rdev()));
            fields.put(XATTRS, !xattrs.0.is_empty(), |out| xattrs.write(out));
            fields.put(LINKS, *links != 1, |out| out.u32(*links));
            fields.put(HELD, *held != 0, |out| out.u32(*held));
            fields.put(VOLUME, *volume != 0, |out| out.u32(*volume));
            fields.put(EPOCH, *epoch != 0, |out| out.u32(*epoch));
            fields.put(POLICY, policy.number != 0, |out| out.u32(policy.number));
            fields.put(POLICY_CHANGE, policy.change != 0, |out| out.number(policy.change));
        });
        out.time(*ctime);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let present = input.optional(Self::OPTIONAL)?;
        let mtime = present.read(input, MTIME, |input| {
            Some((input.signed()?, u32::from_be_bytes(input.array()?)))
        })?;
        let size = present.read_or(input, SIZE, 0, Reader::number)?;
        let single = present.read(input, SINGLE, Reader::chunk)?;
        let mode = present.read(input, MODE, Reader::u32)?;
        let uid = present.read_or(input, UID, 0, Reader::u32)?;
        let gid = present.read_or(input, GID, 0, Reader::u32)?;
        let kind = present.read_or(input, KIND, FileKind::File, Reader::kind)?;
        let age = present.read_or(input, BORN, 0, Reader::signed)?;
        let chunk_size = present.read_or(input, CHUNK_SIZE, CHUNK_SIZE_DEFAULT, Reader::number)?;
        let mut extent = single.map(|chunk| Extent::whole(chunk, size));
        if present.flag(PART) {
            let extent = extent.as_mut()?;
            extent.length = input.number()?;
            extent.chunk_offset = input.number()?;
            extent.epoch = input.u32()?;
        }
        let parent = present.read(input, PARENT, Reader::inode)?;
        let link = present.read_or(input, LINK, Link::Linked, |input| {
            Some(if input.bool()? { Link::Reaping } else { Link::Unlinked })
        })?;
        let target = present.read(input, SYMLINK, Reader::bytes)?;
        let rdev = present.read_or(input, RDEV, 0, Reader::number)?;
        let xattrs = present.read_or(input, XATTRS, Xattrs::default(), Xattrs::read)?;
        let links = present.read_or(input, LINKS, 1, Reader::u32)?;
        let held = present.read_or(input, HELD, 0, Reader::u32)?;
        let volume = present.read_or(input, VOLUME, 0, Reader::u32)?;
        let epoch = present.read_or(input, EPOCH, 0, Reader::u32)?;
        let number = present.read_or(input, POLICY, 0, Reader::u32)?;
        let change = present.read_or(input, POLICY_CHANGE, 0, Reader::number)?;
        let ctime = input.time()?;
        if present.any(foreign_fields(kind)) {
            return None;
        }
        let mtime = match mtime {
            Some((seconds, nanos)) => {
                FileTime::new(seconds.wrapping_add(FileTime::from(ctime).seconds()), nanos)?
            }
            None => ctime.into(),
        };
        let mode = mode.unwrap_or_else(|| mode_default(kind));
        let content = match kind {
            FileKind::File => Content::File(File { size, chunk_size, single: extent }),
            FileKind::Directory => Content::Directory(Directory { parent: parent?, link }),
            FileKind::Symlink => Content::Symlink { target: Bytes::copy_from_slice(target?) },
            FileKind::Fifo => Content::Fifo,
            FileKind::Socket => Content::Socket,
            FileKind::CharacterDevice => Content::CharacterDevice { rdev },
            FileKind::BlockDevice => Content::BlockDevice { rdev },
        };
        Some(Self {
            attributes: Attributes { mode, uid, gid, mtime },
            ctime,
            born: Timestamp::from_millis(ctime.millis().wrapping_sub(age as u64)),
            links,
            held,
            volume,
            epoch,
            policy: PolicyLabel { number, change },
            xattrs,
            content,
        })
    }
}

const TIMES_MTIME: Field = Field::new(0);

impl Record for Times {
    const OPTIONAL: &'static [Field] = &[TIMES_MTIME];

    fn write(&self, out: &mut Writer) {
        out.optional(|fields| {
            fields.put(TIMES_MTIME, self.mtime != self.ctime.into(), |out| {
                out.file_time(self.mtime);
            });
        });
        out.time(self.ctime);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let present = input.optional(Self::OPTIONAL)?;
        let mtime = present.read(input, TIMES_MTIME, Reader::file_time)?;
        let ctime = input.time()?;
        Some(Self { mtime: mtime.unwrap_or_else(|| ctime.into()), ctime })
    }
}

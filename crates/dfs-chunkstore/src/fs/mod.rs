//! The few things a store wants from a file system, blocking, behind a trait so that a simulated
//! one can lose what was not synced.

mod os;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dfs_types::FileSystemId;

pub use os::OsFs;

/// Offsets, lengths and addresses of direct writes are multiples of this; so are records on disk.
pub(crate) const PAGE: usize = 4096;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// An existing one to be read, and written in small pieces.
    Existing,
    /// A new one, or an old one emptied.
    Create,
    /// A new one, or an old one emptied, for large sequential writes that should not fill the
    /// page cache. Written in whole pages but for [`File::set_len`].
    CreateStreaming,
}

/// Space of the file system that holds a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes this process may still take.
    pub available: u64,
    /// Which file system it is; `None` where that cannot be told.
    pub file_system: Option<FileSystemId>,
}

/// Kept while a folder belongs to this process; dropping it gives the folder free.
pub trait FsLock: Send + Sync {}

/// A file system. Calls block; nothing is durable before the sync that says so.
pub trait Fs: Send + Sync + 'static {
    /// Opens a file. The entry of a new one is durable after [`Fs::sync_dir`] of its folder.
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn File>>;

    /// Makes a folder; one that is there already is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Names in a folder, sorted. Names that are not UTF-8 are left out: dfs makes none.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Gives a file another name in its folder, replacing what is there, atomically. Durable
    /// after [`Fs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Fs::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock file at `path`; [`io::ErrorKind::WouldBlock`] when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>>;

    /// Room of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file.
pub trait File: Send + Sync {
    /// Reads `length` bytes from `offset`, fewer only at the end of the file.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes>;

    /// Says that a range is about to be read, so that a disk can begin with all of it. Only a hint.
    fn will_read(&self, _offset: u64, _length: u64) {}

    /// Writes all of `pieces`, one after the other, from `offset`.
    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()>;

    /// Makes data and length durable.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Gives back the room of a range, which reads as zeros from then on. A file system that
    /// cannot does nothing.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;

    /// The first offset from `offset` on that may hold anything but zeros; `None` when there is
    /// nothing more.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

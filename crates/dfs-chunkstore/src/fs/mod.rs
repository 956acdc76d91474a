//! File system operations of a store, blocking, behind a trait so that a simulated one can lose
//! what was not synced.

mod hooked;
mod os;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dfs_types::FileSystemId;

pub use hooked::{FsCall, FsHook, HookedFs};
pub use os::OsFs;

/// Alignment of offsets, lengths and addresses of direct writes, and of records on disk.
pub(crate) const PAGE: usize = 4096;

/// Mode of opening a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// An existing file, for reading and small writes.
    Existing,
    /// A new file, or an existing one truncated.
    Create,
    /// A new file, or an existing one truncated, for large sequential writes that should not fill
    /// the page cache. Written in whole pages except for [`File::set_len`].
    CreateStreaming,
}

/// Space of the file system that holds a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Total bytes.
    pub total: u64,
    /// Bytes available to this process.
    pub available: u64,
    /// Identity of the file system; `None` if it cannot be determined.
    pub file_system: Option<FileSystemId>,
}

/// Held while a directory belongs to this process; dropping it unlocks the directory.
pub trait FsLock: Send + Sync {}

/// A file system. Calls block; nothing is durable before the corresponding sync.
pub trait Fs: Send + Sync + 'static {
    /// Opens a file. The entry of a new one is durable after [`Fs::sync_dir`] of its directory.
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn File>>;

    /// Creates a directory, unless it exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Lists the names in a directory, sorted. Names that are not UTF-8 are skipped: dfs creates
    /// none.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Renames a file within its directory, replacing an existing one, atomically. Durable after
    /// [`Fs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Fs::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock file at `path`; [`io::ErrorKind::WouldBlock`] when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>>;

    /// Returns the space of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file.
pub trait File: Send + Sync {
    /// Reads `length` bytes from `offset`, fewer only at the end of the file.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes>;

    /// Announces that a range is about to be read, so that the disk can prefetch it. Only a hint.
    fn will_read(&self, _offset: u64, _length: u64) {}

    /// Announces that cached bytes of this range are not to be used, so that the next read comes
    /// from the disk. A hint: may do nothing.
    fn drop_cached(&self, _offset: u64, _length: u64) {}

    /// Writes all of `pieces`, consecutively, from `offset`.
    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()>;

    /// Makes data and length durable.
    fn sync(&self) -> io::Result<()>;

    /// Returns whether the file has a name. One that was removed is gone once it is closed.
    fn has_name(&self) -> io::Result<bool>;

    /// Returns the length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Truncates the file, or extends it with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Frees the space of a range, which reads as zeros from then on. Does nothing if the file
    /// system does not support it.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Returns the first offset from `offset` on that may contain anything but zeros; `None` if
    /// there is none.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

//! Backends of redb: a locked file, and a handle that lets a backend outlive a database.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use dfs_metadata::engine::EngineError;
use redb::StorageBackend;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::fault::open_error;
use super::store::Store;

pub(super) const FILE: &str = "metadata.redb";
/// A store being created; renamed once complete.
const UNFINISHED: &str = "metadata.redb.new";
pub(super) const LOCK: &str = "metadata.lock";

/// The file of a store, in a directory that is locked while this exists.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    _lock: File,
}

impl DiskFile {
    /// Opens the file of the store in `folder`. A missing store is created empty, under another
    /// name until it is complete: an empty file can therefore only be damage.
    pub(super) fn open(folder: &Path, cache_bytes: usize) -> Result<Self, EngineError> {
        let io = |error: io::Error| open_error(&folder.display(), &error);
        make_folder(folder).map_err(io)?;
        let lock = lock(folder)?;
        let path = folder.join(FILE);
        if !fs::exists(&path).map_err(io)? {
            let unfinished = folder.join(UNFINISHED);
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(true);
            let file = file.open(&unfinished).map_err(io)?;
            let lock = lock.try_clone().map_err(io)?;
            drop(Store::open(SharedBackend::new(Self { file, _lock: lock }), cache_bytes)?);
            fs::rename(&unfinished, &path).map_err(io)?;
            sync_folder(folder).map_err(io)?;
        }
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            let path = path.display();
            return Err(EngineError::Damaged(format!("{path} is empty: it was truncated")));
        }
        Ok(Self { file, _lock: lock })
    }
}

/// Creates a directory and its parents durably.
fn make_folder(folder: &Path) -> io::Result<()> {
    if fs::exists(folder)? {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    sync_folder(parent)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn in_use(folder: &Path) -> EngineError {
    EngineError::InUse(format!(
        "another process has {} open; stop it or choose another directory",
        folder.display()
    ))
}

fn lock(folder: &Path) -> Result<File, EngineError> {
    let path = folder.join(LOCK);
    let io = |error: io::Error| open_error(&path.display(), &error);
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use(folder)),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Space is allocated here, so that a full disk is detected before a commit begins to write,
        // and never while the store is opened.
        let old = self.len()?;
        if len > old {
            match fallocate(&self.file, FallocateFlags::empty(), old, len - old) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                done => return Ok(done?),
            }
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

/// Lends a backend to one database after another: redb stops for good at the first failure, and
/// must be reopened.
#[derive(Debug, Clone)]
pub(super) struct SharedBackend(Arc<Owned>);

#[derive(Debug)]
struct Owned(Box<dyn StorageBackend>);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Err(error) = self.0.close() {
            tracing::warn!(%error, "cannot close the metadata store");
        }
    }
}

impl SharedBackend {
    pub(super) fn new(backend: impl StorageBackend) -> Self {
        Self(Arc::new(Owned(Box::new(backend))))
    }
}

impl StorageBackend for SharedBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.0.write(offset, data)
    }
}

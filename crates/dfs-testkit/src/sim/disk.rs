//! Simulated disks, also for the metadata, and ones that lie.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dfs_chunkstore::{File, Fs, FsLock, Opening, Space};
use redb::StorageBackend;

/// A file as the storage backend of redb.
pub struct FsBackend(Arc<dyn File>);

impl FsBackend {
    /// Opens the file, or creates it with a durable name.
    pub fn open(fs: &dyn Fs, path: &Path) -> io::Result<Self> {
        match fs.open(path, Opening::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = fs.open(path, Opening::Create)?;
                fs.sync_dir(path.parent().unwrap_or(path))?;
                Ok(Self(file))
            }
            opened => Ok(Self(opened?)),
        }
    }
}

impl fmt::Debug for FsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FsBackend")
    }
}

impl StorageBackend for FsBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read_at(offset, out.len())?;
        if bytes.len() < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.copy_from_slice(&bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, &[Bytes::copy_from_slice(data)])
    }
}

/// A file system whose file syncs succeed without effect.
pub(super) struct LyingFs<F>(pub(super) F);

struct LyingFile(Arc<dyn File>);

impl<F: Fs> Fs for LyingFs<F> {
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(LyingFile(self.0.open(path, how)?)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        self.0.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }
}

impl File for LyingFile {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.0.read_at(offset, length)
    }

    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        self.0.write_at(offset, pieces)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn has_name(&self) -> io::Result<bool> {
        self.0.has_name()
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.punch(offset, length)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.0.next_data(offset)
    }
}

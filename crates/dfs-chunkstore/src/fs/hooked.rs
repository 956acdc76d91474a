//! A file system that calls a hook around each operation of another one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{File, Fs, FsLock, Opening, Space};

/// An operation about to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsCall {
    /// A read of a file.
    Read {
        /// Offset of the first byte.
        offset: u64,
        /// Bytes to read.
        length: u64,
    },
    /// A sync of a file.
    SyncFile,
    /// Any other.
    Other,
}

/// Observes, delays or refuses the operations of a file system.
pub trait FsHook: Send + Sync + 'static {
    /// Held while an operation runs.
    type Running<'a>
    where
        Self: 'a;

    /// Called before each operation on `path`; blocking here delays it. After an error it does not
    /// take place.
    fn begin(&self, path: &Path, call: FsCall) -> io::Result<Self::Running<'_>>;
}

/// A file system with a hook.
pub struct HookedFs<H> {
    inner: Arc<dyn Fs>,
    hook: Arc<H>,
}

struct HookedFile<H> {
    inner: Arc<dyn File>,
    path: PathBuf,
    hook: Arc<H>,
}

impl<H: FsHook> HookedFs<H> {
    /// Adds a hook to a file system.
    pub fn new(inner: Arc<dyn Fs>, hook: Arc<H>) -> Self {
        Self { inner, hook }
    }

    fn begin(&self, path: &Path) -> io::Result<H::Running<'_>> {
        self.hook.begin(path, FsCall::Other)
    }
}

impl<H: FsHook> Fs for HookedFs<H> {
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn File>> {
        let _running = self.begin(path)?;
        let inner = self.inner.open(path, how)?;
        let (path, hook) = (path.to_owned(), Arc::clone(&self.hook));
        Ok(Arc::new(HookedFile { inner, path, hook }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let _running = self.begin(path)?;
        self.inner.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let _running = self.begin(path)?;
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _running = self.begin(from)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _running = self.begin(path)?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let _running = self.begin(path)?;
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let _running = self.begin(path)?;
        self.inner.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let _running = self.begin(path)?;
        self.inner.space(path)
    }
}

impl<H: FsHook> HookedFile<H> {
    fn begin(&self, call: FsCall) -> io::Result<H::Running<'_>> {
        self.hook.begin(&self.path, call)
    }
}

impl<H: FsHook> File for HookedFile<H> {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let _running = self.begin(FsCall::Read { offset, length: length as u64 })?;
        self.inner.read_at(offset, length)
    }

    fn will_read(&self, offset: u64, length: u64) {
        if let Ok(_running) = self.begin(FsCall::Other) {
            self.inner.will_read(offset, length);
        }
    }

    fn drop_cached(&self, offset: u64, length: u64) {
        if let Ok(_running) = self.begin(FsCall::Other) {
            self.inner.drop_cached(offset, length);
        }
    }

    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let _running = self.begin(FsCall::Other)?;
        self.inner.write_at(offset, pieces)
    }

    fn sync(&self) -> io::Result<()> {
        let _running = self.begin(FsCall::SyncFile)?;
        self.inner.sync()
    }

    fn has_name(&self) -> io::Result<bool> {
        let _running = self.begin(FsCall::Other)?;
        self.inner.has_name()
    }

    fn length(&self) -> io::Result<u64> {
        let _running = self.begin(FsCall::Other)?;
        self.inner.length()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let _running = self.begin(FsCall::Other)?;
        self.inner.set_len(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let _running = self.begin(FsCall::Other)?;
        self.inner.punch(offset, length)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let _running = self.begin(FsCall::Other)?;
        self.inner.next_data(offset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct NoHook;

    impl FsHook for NoHook {
        type Running<'a> = ();

        fn begin(&self, _: &Path, _: FsCall) -> io::Result<()> {
            Ok(())
        }
    }

    /// Remembers the hints it was given.
    #[derive(Default)]
    struct Hints(Mutex<Vec<(&'static str, u64, u64)>>);

    impl File for Hints {
        fn will_read(&self, offset: u64, length: u64) {
            self.0.lock().unwrap().push(("will_read", offset, length));
        }

        fn drop_cached(&self, offset: u64, length: u64) {
            self.0.lock().unwrap().push(("drop_cached", offset, length));
        }

        fn read_at(&self, _: u64, _: usize) -> io::Result<Bytes> {
            unreachable!()
        }

        fn write_at(&self, _: u64, _: &[Bytes]) -> io::Result<()> {
            unreachable!()
        }

        fn sync(&self) -> io::Result<()> {
            unreachable!()
        }

        fn has_name(&self) -> io::Result<bool> {
            unreachable!()
        }

        fn length(&self) -> io::Result<u64> {
            unreachable!()
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            unreachable!()
        }

        fn punch(&self, _: u64, _: u64) -> io::Result<()> {
            unreachable!()
        }

        fn next_data(&self, _: u64) -> io::Result<Option<u64>> {
            unreachable!()
        }
    }

    /// Hints have default methods, so that nothing but this notices one that is not passed on.
    #[test]
    fn hints_reach_the_file() {
        let inner = Arc::new(Hints::default());
        let file =
            HookedFile { inner: inner.clone(), path: PathBuf::new(), hook: Arc::new(NoHook) };
        file.will_read(1, 2);
        file.drop_cached(3, 4);
        assert_eq!(*inner.0.lock().unwrap(), [("will_read", 1, 2), ("drop_cached", 3, 4)]);
    }
}

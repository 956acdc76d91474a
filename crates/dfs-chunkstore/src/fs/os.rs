//! The operating system's file system.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{File, Fs, FsLock, Opening, Space};

/// The operating system's file system.
#[derive(Debug, Default)]
pub struct OsFs {}

impl Fs for OsFs {
    fn open(&self, _path: &Path, _how: Opening) -> io::Result<Arc<dyn File>> {
        todo!()
    }
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        todo!()
    }
    fn list(&self, _path: &Path) -> io::Result<Vec<String>> {
        todo!()
    }
    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        todo!()
    }
    fn remove(&self, _path: &Path) -> io::Result<()> {
        todo!()
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        todo!()
    }
    fn lock(&self, _path: &Path) -> io::Result<Box<dyn FsLock>> {
        todo!()
    }
    fn space(&self, _path: &Path) -> io::Result<Space> {
        todo!()
    }
}

//! A file system in memory that loses, at a crash, whatever was not synced.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dfs_types::Random;

use crate::fs::{File, Fs, FsLock, Opening, Space};

/// What a [`Fault`] strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reads of file content.
    Read,
    /// Creating, writing, allocating, cutting, renaming and removing.
    Write,
    /// Syncs of files and folders.
    Sync,
}

/// A file system in memory. Clones share it. Deterministic: it has no time and no randomness of
/// its own.
///
/// Every call that changes something counts as one operation, every sync of a file or folder
/// also as one sync; both are numbered from 0 so that a test can crash at, or ignore, each.
#[derive(Clone, Default)]
pub struct SimFs {}

impl SimFs {
    /// Makes an empty one with a lot of room.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes it holds in all.
    pub fn set_capacity(&self, _bytes: u64) {
        todo!()
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        todo!()
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        todo!()
    }

    /// Stops at the operation of this number: it and all calls after it fail, without effect,
    /// until [`Self::crash`].
    pub fn stop_at(&self, _operation: u64) {
        todo!()
    }

    /// Makes the sync of this number a lie: it succeeds and does nothing.
    pub fn ignore_sync(&self, _sync: u64) {
        todo!()
    }

    /// Drops everything that was not synced, as a loss of power does, closes all files, frees
    /// all locks and goes on from there.
    pub fn crash(&self) {
        todo!()
    }

    /// Like [`Self::crash`], but keeps some of what was not synced, page by page, as `random`
    /// has it; of changes to folders a run from the oldest on.
    pub fn crash_torn(&self, _random: &dyn Random) {
        todo!()
    }

    /// Makes every operation of a kind below `path` fail with this error of the operating system
    /// until [`Self::heal`].
    pub fn fail(&self, _path: &Path, _operation: Operation, _errno: i32) {
        todo!()
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        todo!()
    }

    /// Flips a bit of a file, on disk as well as in memory.
    pub fn flip_bit(&self, _path: &Path, _offset: u64, _bit: u8) -> io::Result<()> {
        todo!()
    }
}

impl Fs for SimFs {
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

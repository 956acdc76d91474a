//! An in-memory file system that loses everything unsynced in a crash.

mod content;
mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dfs_types::Random;

use crate::fs::{File, Fs, FsLock, Opening, Space};
use world::{FileId, World};

pub use world::Image;

/// Operations affected by a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reads of files and directories, also those that overwriting a part of a page implies.
    Read,
    /// Creating, writing, truncating, renaming, removing, locking.
    Write,
    /// Syncs of files and directories.
    Sync,
}

/// Object of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// The content of a file.
    File,
    /// The names in a directory.
    Folder,
}

/// An in-memory file system. Clones share it. It uses neither time nor randomness, so that the same
/// calls always have the same result.
///
/// It is stricter than real file systems: syncing a file does not make its name durable, and
/// syncing a directory covers only the names in it. Every call that changes or syncs something
/// counts as one operation, and every sync of a file or directory also as one sync; both are
/// numbered from 0 so that a test can stop at, or ignore, each of them.
#[derive(Clone)]
pub struct SimFs {
    world: Arc<Mutex<World>>,
}

struct SimFile {
    fs: SimFs,
    path: PathBuf,
    file: FileId,
    life: u64,
}

struct SimLock {
    fs: SimFs,
    path: PathBuf,
    life: u64,
}

impl SimFs {
    /// Creates a file system with only a root directory, and plenty of space.
    pub fn new() -> Self {
        Self { world: Arc::new(Mutex::new(World::new())) }
    }

    /// Returns an independent copy of the file system, to explore another future. Open files still
    /// refer to the original.
    pub fn fork(&self) -> Self {
        Self { world: Arc::new(Mutex::new(self.world().clone())) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the total bytes of file content that it can hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = bytes;
    }

    /// Returns the number of operations so far.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Returns a number that differs whenever the content may: it grows with each operation, each end
    /// of a process, and whatever is done to the disks from outside.
    pub fn version(&self) -> u64 {
        let world = self.world();
        world.operations + world.life + world.interventions
    }

    /// Returns the number of syncs so far.
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// Stops at the operation with this number: it and every later one fail, without effect, until
    /// [`Self::crash`].
    pub fn stop_at(&self, operation: u64) {
        self.world().stop_at = Some(operation);
    }

    /// Makes the sync with this number succeed without effect, until the next crash.
    pub fn ignore_sync(&self, sync: u64) {
        self.world().ignored_sync = Some(sync);
    }

    /// Makes the next sync of this kind report a full disk although it completes: a failed sync may
    /// have done any part of its work. It is not counted as a sync, as it guarantees nothing.
    /// Applies until the next crash.
    pub fn fill_next_sync(&self, of: Synced) {
        self.world().full_sync = Some(of);
    }

    /// Drops everything unsynced, as a power loss does, closes all files, and releases all locks.
    pub fn crash(&self) {
        self.world().crash(None);
    }

    /// Like [`Self::crash`], but keeps some of the unsynced changes, chosen by `random`: any pages
    /// of files, and the oldest changes of names.
    pub fn crash_torn(&self, random: &dyn Random) {
        self.world().crash(Some(random));
    }

    /// Closes all files and releases all locks, as the end of a process does. What it wrote stays,
    /// durable or not; a stop ends.
    pub fn end_process(&self) {
        self.world().end_process();
    }

    /// Makes every operation of a kind at or below `path` fail with this errno until
    /// [`Self::heal`].
    pub fn fail(&self, path: &Path, operation: Operation, errno: i32) {
        self.world().fail(path, operation, errno);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.world().heal();
    }

    /// Empties a directory durably, like a replaced disk.
    pub fn wipe(&self, folder: &Path) {
        self.world().wipe(folder);
    }

    /// Returns the files below a folder, with their lengths, in the order of their paths.
    pub fn files(&self, folder: &Path) -> Vec<(PathBuf, u64)> {
        self.world().files(folder)
    }

    /// Removes a file, durably, without counting as an operation: nobody removed it.
    pub fn lose(&self, path: &Path) {
        self.world().lose(path);
    }

    /// Returns the durable state of a folder, to [restore](Self::restore) it later.
    pub fn image(&self, folder: &Path) -> Image {
        self.world().image(folder)
    }

    /// Replaces the content of a folder by an image of it, durably, like a disk that is put back.
    /// Open files of the folder are gone.
    pub fn restore(&self, image: &Image) {
        self.world().restore(image);
    }

    /// Returns the first bytes of a file, without counting as an operation and in spite of faults.
    pub fn read_all(&self, path: &Path, length: u64) -> io::Result<Bytes> {
        let mut world = self.world();
        let file = world.file(path)?;
        Ok(world.content(file)?.read(0, length as usize))
    }

    /// Flips a bit of a file, in memory and on disk.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut world = self.world();
        let file = world.file(path)?;
        world.content(file)?.flip_bit(offset, bit);
        world.interventions += 1;
        Ok(())
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SimFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimFs")
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        let file = match how {
            Opening::Existing => {
                world.enter(path, Operation::Read)?;
                world.file(path)?
            }
            Opening::Create | Opening::CreateStreaming => world.create(path)?,
        };
        let life = world.life;
        Ok(Arc::new(SimFile { fs: self.clone(), path: path.to_owned(), file, life }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.world().create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.world().list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.world().remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.world().sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let mut world = self.world();
        world.lock(path)?;
        Ok(Box::new(SimLock { fs: self.clone(), path: path.to_owned(), life: world.life }))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(self.world().space())
    }
}

impl SimFile {
    /// Returns the world, if this file was opened in its current life.
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.fs.world();
        if world.life == self.life {
            Ok(world)
        } else {
            Err(io::Error::other("the file was opened before the crash"))
        }
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.world()?.read(&self.path, self.file, offset, length)
    }

    fn drop_cached(&self, offset: u64, length: u64) {
        if let Ok(mut world) = self.world()
            && let Ok(content) = world.content(self.file)
        {
            content.drop_cached(offset, length);
        }
    }

    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let bytes = pieces.concat();
        self.world()?.write(&self.path, self.file, offset, &bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.world()?.sync(&self.path, self.file)
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.world()?.has_name(self.file))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.world()?.content(self.file)?.length())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut world = self.world()?;
        world.enter(&self.path, Operation::Write)?;
        world.content(self.file)?.set_len(length);
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut world = self.world()?;
        world.enter(&self.path, Operation::Write)?;
        world.content(self.file)?.punch(offset, length);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(self.world()?.content(self.file)?.next_data(offset))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.fs.world();
        if world.life == self.life {
            world.unlock(&self.path);
        }
    }
}

impl FsLock for SimLock {}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::SeededRandom;

    fn write(file: &Arc<dyn File>, offset: u64, bytes: &'static [u8]) {
        file.write_at(offset, &[Bytes::from_static(bytes)]).unwrap();
    }

    #[test]
    fn crash_drops_unsynced_changes() {
        let fs = SimFs::new();
        let (root, path) = (Path::new("/"), Path::new("/a"));
        let file = fs.open(path, Opening::Create).unwrap();
        write(&file, 0, b"old");
        file.sync().unwrap();
        fs.crash();
        assert!(fs.open(path, Opening::Existing).is_err(), "its name was not synced");

        let file = fs.open(path, Opening::Create).unwrap();
        write(&file, 0, b"old");
        file.sync().unwrap();
        fs.sync_dir(root).unwrap();
        write(&file, 0, b"new and longer");
        fs.crash();
        assert!(file.read_at(0, 1).is_err(), "files of an earlier life are closed");
        let file = fs.open(path, Opening::Existing).unwrap();
        assert_eq!(file.read_at(0, 99).unwrap(), "old");

        fs.remove(path).unwrap();
        fs.crash();
        assert!(fs.open(path, Opening::Existing).is_ok(), "its removal was not synced");
    }

    #[test]
    fn end_of_a_process_keeps_unsynced_changes_until_a_crash() {
        let fs = SimFs::new();
        let path = Path::new("/a");
        let file = fs.open(path, Opening::Create).unwrap();
        let _lock = fs.lock(Path::new("/lock")).unwrap();
        write(&file, 0, b"x");
        fs.stop_at(fs.operations());
        assert!(file.sync().is_err());
        fs.end_process();
        assert!(file.read_at(0, 1).is_err(), "files of an earlier process are closed");
        assert!(fs.lock(Path::new("/lock")).is_ok());
        let file = fs.open(path, Opening::Existing).unwrap();
        assert_eq!(file.read_at(0, 1).unwrap(), "x");
        fs.crash();
        assert!(fs.open(path, Opening::Existing).is_err(), "its name was not synced");
    }

    #[test]
    fn ignored_or_failed_sync_makes_nothing_durable() {
        for is_failure in [false, true] {
            let fs = SimFs::new();
            let file = fs.open(Path::new("/a"), Opening::Create).unwrap();
            fs.sync_dir(Path::new("/")).unwrap();
            write(&file, 0, b"x");
            if is_failure {
                fs.fail(Path::new("/"), Operation::Sync, 5);
                assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
                fs.heal();
                file.sync().unwrap();
            } else {
                fs.ignore_sync(fs.syncs());
                file.sync().unwrap();
            }
            fs.crash();
            let file = fs.open(Path::new("/a"), Opening::Existing).unwrap();
            assert_ne!(file.read_at(0, 1).unwrap(), "x");
        }
    }

    #[test]
    fn read_past_the_cache_returns_what_a_failed_sync_left_on_the_disk() {
        let fs = SimFs::new();
        let file = fs.open(Path::new("/a"), Opening::Create).unwrap();
        write(&file, 0, b"old");
        file.sync().unwrap();
        write(&file, 0, b"new");
        file.drop_cached(0, 3);
        assert_eq!(file.read_at(0, 3).unwrap(), "new", "what was not synced stays in the cache");
        fs.fail(Path::new("/"), Operation::Sync, 5);
        file.sync().unwrap_err();
        fs.heal();
        file.sync().unwrap();
        assert_eq!(file.read_at(0, 3).unwrap(), "new");
        file.drop_cached(0, 3);
        assert_eq!(file.read_at(0, 3).unwrap(), "old");
    }

    #[test]
    fn image_has_what_was_durable_and_replaces_the_folder() {
        let fs = SimFs::new();
        let (root, folder) = (Path::new("/"), Path::new("/disk"));
        let (kept, late) = (folder.join("kept"), folder.join("late"));
        fs.create_dir(folder).unwrap();
        fs.sync_dir(root).unwrap();
        let file = fs.open(&kept, Opening::Create).unwrap();
        write(&file, 0, b"old");
        file.sync().unwrap();
        fs.sync_dir(folder).unwrap();
        write(&file, 0, b"unsynced");
        let image = fs.image(folder);
        fs.lose(&kept);
        fs.open(&late, Opening::Create).unwrap();
        assert_eq!(fs.files(folder), [(late, 0)]);
        fs.restore(&image);
        fs.crash();
        assert_eq!(fs.files(folder), [(kept.clone(), 3)]);
        let file = fs.open(&kept, Opening::Existing).unwrap();
        assert_eq!(file.read_at(0, 99).unwrap(), "old");
    }

    #[test]
    fn sync_may_complete_and_report_a_full_disk() {
        let fs = SimFs::new();
        let (root, path) = (Path::new("/"), Path::new("/a"));
        let file = fs.open(path, Opening::Create).unwrap();
        write(&file, 0, b"x");
        fs.fill_next_sync(Synced::File);
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
        fs.fill_next_sync(Synced::Folder);
        file.sync().unwrap();
        assert_eq!(fs.sync_dir(root).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs.syncs(), 1);
        fs.crash();
        assert_eq!(fs.open(path, Opening::Existing).unwrap().read_at(0, 1).unwrap(), "x");
    }

    #[test]
    fn forks_are_independent() {
        let fs = SimFs::new();
        let path = Path::new("/a");
        let file = fs.open(path, Opening::Create).unwrap();
        write(&file, 0, b"x");
        let fork = fs.fork();
        fs.crash();
        assert!(fs.open(path, Opening::Existing).is_err());
        assert_eq!(fork.open(path, Opening::Existing).unwrap().read_at(0, 1).unwrap(), "x");
    }

    #[test]
    fn torn_crash_keeps_some_pages_of_some_writes() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let fs = SimFs::new();
            let file = fs.open(Path::new("/a"), Opening::Create).unwrap();
            fs.sync_dir(Path::new("/")).unwrap();
            file.set_len(8192).unwrap();
            file.sync().unwrap();
            write(&file, 4095, b"xy");
            fs.crash_torn(&SeededRandom::new(seed));
            let file = fs.open(Path::new("/a"), Opening::Existing).unwrap();
            seen.insert(file.read_at(4095, 2).unwrap());
        }
        assert_eq!(seen.len(), 4, "both, either, or none of two pages");
    }

    #[test]
    fn usage_counts_allocated_pages() {
        let fs = SimFs::new();
        fs.set_capacity(8192);
        let file = fs.open(Path::new("/a"), Opening::Create).unwrap();
        let error = file.write_at(0, &[Bytes::from(vec![1; 12_288])]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs.space(Path::new("/")).unwrap().available, 0);
        file.punch(0, 4096).unwrap();
        assert_eq!(fs.space(Path::new("/")).unwrap().available, 4096);
        assert_eq!(file.next_data(0).unwrap(), Some(4096));
    }
}

//! One disk of the store: its directory, space and health.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::{ChunkId, DiskId, DiskState, Stamp};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::commit::Commits;
use super::failure::{Condition, NOT_MOUNTED};
use super::identity_file::DiskIdentity;
use super::index::{Entry, Index, Place};
use super::open::Folder;
use super::read::Table;
use super::reading::Progress;
use super::recent::{FileKey, Recent};
use super::reopen::{Attempt, HANGS};
use super::segments::Segments;
use super::space::DiskSpace;
use super::stamps::Stamps;
use super::unread_heads::UNREAD;
use super::watchdog::{Pace, Watch};
use super::{CHUNKS, SEGMENTS};
use crate::thread_pool::Running;
use crate::{
    DamagedHead, DiskUsage, File, Fs, FsLock, Opening, Pool, Registration, SealedChunk, Space,
    StoreError,
};

/// Maximum bytes in flight to one disk; writers wait for room.
const IN_FLIGHT_BYTES: u64 = 16 << 20;
/// Why a disk is starting.
const READING: &str = "its replicas are being read; they are served when all of them are found";
/// Unit of the limit.
const IN_FLIGHT_UNIT: u64 = 64 << 10;
const IN_FLIGHT_UNITS: u32 = (IN_FLIGHT_BYTES / IN_FLIGHT_UNIT) as u32;

pub(super) struct Disk {
    pub(super) number: u16,
    pub(super) id: DiskId,
    pub(super) folder: PathBuf,
    pub(super) fs: Arc<dyn Fs>,
    /// Threads of this disk only, so that a slow disk does not delay the others.
    pub(super) pool: Pool,
    watch: Arc<Watch>,
    pub(super) index: Arc<Index>,
    pub(super) space: Arc<DiskSpace>,
    pub(super) stamps: Arc<Stamps>,
    pub(super) segments: Segments,
    pub(super) commits: Commits,
    pub(super) files: Recent<FileKey, Arc<dyn File>>,
    /// Block checksums that were verified against the checksum of their replica.
    pub(super) tables: Recent<(ChunkId, Stamp), Table>,
    in_flight: Arc<Semaphore>,
    /// Directories of large chunks whose names are durable.
    durable_shards: Mutex<BTreeSet<u8>>,
    /// Held while the head of a sealed replica is changed.
    head_turn: Mutex<()>,
    condition: Mutex<Condition>,
    /// Heads that were damaged or unreadable when it was opened.
    pub(super) damaged: Mutex<Vec<DamagedHead>>,
    /// How much of it has been read at the start.
    pub(super) progress: Progress,
    /// When unread heads are read again.
    pub(super) heads_due: Mutex<Option<Instant>>,
    /// When the outdated indexes of its segments are written again.
    indexes_due: Mutex<Option<Instant>>,
    /// True if the cluster wants it emptied.
    is_retiring: AtomicBool,
    /// Held while its identity is written.
    identity_turn: Arc<AsyncMutex<()>>,
    lock: Mutex<Option<Box<dyn FsLock>>>,
    /// Held while the disk is brought into service.
    pub(super) attempt: AsyncMutex<Option<Attempt>>,
}

/// What was found when a disk was opened.
pub(super) struct Opened {
    pub(super) id: DiskId,
    /// `None` out of service.
    pub(super) lock: Option<Box<dyn FsLock>>,
    pub(super) condition: Condition,
}

/// State shared by all disks of a store.
pub(super) struct Shared {
    pub(super) index: Arc<Index>,
    pub(super) stamps: Arc<Stamps>,
}

impl Disk {
    pub(super) fn new(
        number: u16,
        opened: Opened,
        folder: Folder,
        shared: Shared,
        space: DiskSpace,
        segments: Segments,
    ) -> Self {
        let Opened { id, lock, condition } = opened;
        let Folder { path, fs, watch, pool, .. } = folder;
        let Shared { index, stamps } = shared;
        Self {
            number,
            id,
            folder: path,
            fs,
            pool,
            watch,
            index,
            space: Arc::new(space),
            stamps,
            segments,
            commits: Commits::default(),
            files: Recent::default(),
            tables: Recent::default(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_UNITS as usize)),
            durable_shards: Mutex::default(),
            head_turn: Mutex::default(),
            condition: Mutex::new(condition),
            damaged: Mutex::default(),
            progress: Progress::default(),
            heads_due: Mutex::default(),
            indexes_due: Mutex::default(),
            is_retiring: AtomicBool::new(false),
            identity_turn: Arc::default(),
            lock: Mutex::new(lock),
            attempt: AsyncMutex::default(),
        }
    }

    /// Runs a job on the threads of the disk. Fails with [`StoreError::Hung`] once the disk hangs;
    /// the job may still complete then.
    pub(super) async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        Ok(self.unless_hung(self.pool.run(job)).await??)
    }

    /// Waits for something that needs the disk, unless it hangs.
    pub(super) async fn unless_hung<T>(
        &self,
        what: impl Future<Output = T>,
    ) -> Result<T, StoreError> {
        let result = self.watch.unless_hung(what).await;
        result.ok_or_else(|| StoreError::Hung { disk: self.folder.display().to_string() })
    }

    /// Starts to write its identity, after creating the directories of chunks in a new life.
    pub(super) async fn start_writing_identity(
        self: &Arc<Self>,
        content: DiskIdentity,
        is_start: bool,
    ) -> Result<Running<Result<(), StoreError>>, StoreError> {
        let turn = Arc::clone(&self.identity_turn).lock_owned();
        let turn = self.unless_hung(turn).await?;
        let disk = Arc::clone(self);
        let write = move || {
            let _turn = turn;
            let made = || {
                if is_start {
                    disk.fs.create_dir(&disk.folder.join(CHUNKS))?;
                    disk.fs.create_dir(&disk.segments_path())?;
                }
                content.write(&*disk.fs, &disk.folder)
            };
            made().map_err(|error| disk.sync_fault("writing the identity", error))
        };
        self.unless_hung(self.pool.start(write)).await
    }

    /// Replaces its identity, durably.
    pub(super) async fn write_identity(
        self: &Arc<Self>,
        content: DiskIdentity,
    ) -> Result<(), StoreError> {
        let writing = self.start_writing_identity(content, false).await?;
        self.written(writing).await
    }

    /// Waits until an identity is written.
    pub(super) async fn written(
        &self,
        writing: Running<Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        self.unless_hung(writing).await??
    }

    /// Waits for room among the bytes in flight to the disk.
    pub(super) async fn admit(&self, bytes: u64) -> Result<OwnedSemaphorePermit, StoreError> {
        let units = bytes.div_ceil(IN_FLIGHT_UNIT).clamp(1, u64::from(IN_FLIGHT_UNITS));
        let permit = Arc::clone(&self.in_flight).acquire_many_owned(units as u32);
        let permit = self.unless_hung(permit).await?;
        permit.map_err(|_| StoreError::Closed)
    }

    /// Waits until nothing is in flight, and admits nothing from then on.
    pub(super) async fn drain(&self) {
        if let Ok(all) = self.in_flight.acquire_many(IN_FLIGHT_UNITS).await {
            all.forget();
            self.in_flight.close();
        }
    }

    /// Unlocks the directory for another process.
    pub(super) fn unlock(&self) {
        self.in_flight.close();
        self.release();
    }

    /// Returns whether the store was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.in_flight.is_closed()
    }

    /// Keeps the lock of the directory.
    pub(super) fn keep(&self, lock: Box<dyn FsLock>) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
    }

    /// Returns whether it holds the lock of the directory.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Releases the lock of the directory, so that it can be opened again.
    pub(super) fn release(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits for the turn to read the head of a sealed replica, change it and write it back, on a
    /// thread of the disk. Without it, one of two changes could be lost.
    pub(super) fn head_turn(&self) -> MutexGuard<'_, ()> {
        self.head_turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn indexes_due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.indexes_due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it is in service and has the newest registration of the node.
    pub(super) fn is_current(&self) -> bool {
        matches!(*self.condition(), Condition::Current)
    }

    /// Returns the registration of the disk, if that of the node is `newest`.
    pub(super) fn registration(&self, newest: Option<Registration>) -> Option<Registration> {
        match &*self.condition() {
            Condition::Returning { registration, .. } => *registration,
            _ => newest,
        }
    }

    /// Records that it did not take a registration; it has this one.
    pub(super) fn return_later(
        &self,
        registration: Option<Registration>,
        why: &dyn std::fmt::Display,
    ) {
        let mut condition = self.condition();
        if matches!(*condition, Condition::Current) {
            tracing::warn!(disk = %self.folder.display(), "the disk missed a registration: {why}");
            *condition = Condition::Returning { registration, why: why.to_string() };
        }
    }

    /// Records that it has the newest registration.
    pub(super) fn end_return(&self) {
        let mut condition = self.condition();
        if matches!(*condition, Condition::Returning { .. }) {
            tracing::info!(disk = %self.folder.display(), "the disk is back in full service");
            *condition = Condition::Current;
        }
    }

    /// Records whether the cluster wants it emptied.
    pub(super) fn set_retiring(&self, is_retiring: bool) {
        self.is_retiring.store(is_retiring, Ordering::Release);
    }

    /// Returns whether the cluster wants it emptied.
    pub(super) fn is_retiring(&self) -> bool {
        self.is_retiring.load(Ordering::Acquire)
    }

    pub(super) fn usage(&self) -> DiskUsage {
        let has_unread_heads = self.has_unread_heads();
        let (state, reason) = self.state();
        let read_percent = self.progress.percent().filter(|_| state == DiskState::Starting);
        let usage = DiskUsage { has_unread_heads, read_percent, ..self.space.usage(self.id) };
        if state.is_in_service() {
            DiskUsage { state, reason, ..usage }
        } else {
            DiskUsage { free: 0, chunks: 0, state, reason, ..usage }
        }
    }

    /// Returns its state and the reason; an empty one if it is healthy.
    fn state(&self) -> (DiskState, String) {
        let pace = self.watch.observe(Instant::now());
        let (is_retiring, read_percent) = (self.is_retiring(), self.progress.percent());
        let condition = self.condition();
        let (state, why) = match (&*condition, pace) {
            (Condition::Failed(why), _) => (DiskState::Failed, why.as_str()),
            (_, Pace::Hung) if read_percent.is_some() => (DiskState::Missing, HANGS),
            _ if read_percent.is_some() => (DiskState::Starting, READING),
            (Condition::Missing(why), _) => (DiskState::Missing, why.as_str()),
            (Condition::Unmounted, _) => (DiskState::Missing, NOT_MOUNTED),
            (_, Pace::Hung) => {
                (DiskState::Hung, "an operation does not return: check the disk and its driver")
            }
            (Condition::Returning { why, .. }, _) => (DiskState::Returning, why.as_str()),
            (Condition::Current, _) if is_retiring => {
                (DiskState::Retiring, "it is being emptied, as ordered")
            }
            (Condition::Current, Pace::Slow) => {
                (DiskState::Slow, "operations took unusually long recently")
            }
            (Condition::Current, Pace::Normal) if self.has_unread_heads() => {
                (DiskState::Healthy, UNREAD)
            }
            (Condition::Current, Pace::Normal) => return (DiskState::Healthy, String::new()),
        };
        let mut reason = format!("{}: {why}", self.folder.display());
        reason.truncate(reason.floor_char_boundary(DiskState::REASON_LEN_MAX));
        (state, reason)
    }

    /// Returns the space reported by the file system; `None` if it reports none.
    pub(super) fn found_space(&self) -> Option<Space> {
        self.fs.space(&self.folder).ok()
    }

    pub(super) fn refresh_space(&self) {
        if let Some(found) = self.found_space() {
            self.space.refresh(found);
        }
    }

    /// Makes a sealed replica visible.
    pub(super) fn publish(&self, chunk: ChunkId, entry: Entry) -> Result<SealedChunk, StoreError> {
        if let Some(old) = self.index.insert(chunk, entry) {
            self.free_replaced(chunk, &old);
        }
        if self.is_out_of_service() {
            self.index.drop_disk(self.number);
            return Err(self.out_of_service());
        }
        Ok(self.describe(chunk, &entry))
    }

    pub(super) fn describe(&self, chunk: ChunkId, entry: &Entry) -> SealedChunk {
        SealedChunk {
            chunk,
            stamp: entry.stamp,
            disk: self.id,
            length: entry.length,
            crc32c: entry.crc32c,
            is_set_aside: entry.is_set_aside,
        }
    }

    /// Opens the file of a replica.
    pub(super) fn open(&self, chunk: ChunkId, entry: &Entry) -> io::Result<Arc<dyn File>> {
        match entry.place {
            Place::File => self.files.get_or_insert(FileKey::Chunk(chunk, entry.stamp), || {
                self.fs.open(&self.chunk_path(chunk), Opening::Existing)
            }),
            Place::Record { segment, .. } => self.open_segment(segment),
        }
    }

    pub(super) fn open_segment(&self, segment: u32) -> io::Result<Arc<dyn File>> {
        self.files.get_or_insert(FileKey::Segment(segment), || {
            let name = self.segments.name(segment).ok_or(io::ErrorKind::NotFound)?;
            self.fs.open(&self.folder.join(SEGMENTS).join(name), Opening::Existing)
        })
    }

    /// Returns the directory of a large chunk, named by the last bits of its id, as the first ones
    /// are the time.
    pub(super) fn shard_path(&self, chunk: ChunkId) -> PathBuf {
        self.folder.join(CHUNKS).join(format!("{:02x}", chunk.0 as u8))
    }

    pub(super) fn chunk_path(&self, chunk: ChunkId) -> PathBuf {
        self.shard_path(chunk).join(format!("{chunk}.v1"))
    }

    pub(super) fn part_path(&self, chunk: ChunkId) -> PathBuf {
        self.shard_path(chunk).join(format!("{chunk}.part"))
    }

    /// Makes the names in the directory of a large chunk durable, and the name of the directory
    /// itself.
    pub(super) fn sync_shard(&self, chunk: ChunkId) -> io::Result<()> {
        let mut shards = self.durable_shards.lock().unwrap_or_else(PoisonError::into_inner);
        if !shards.contains(&(chunk.0 as u8)) {
            self.fs.sync_dir(&self.folder.join(CHUNKS))?;
            shards.insert(chunk.0 as u8);
        }
        drop(shards);
        self.fs.sync_dir(&self.shard_path(chunk))
    }

    pub(super) fn segments_path(&self) -> PathBuf {
        self.folder.join(SEGMENTS)
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

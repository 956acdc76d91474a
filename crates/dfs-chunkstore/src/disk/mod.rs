//! The chunk store on disks.
//!
//! ```text
//! <directory>/dfs-identity            whose disk it is
//! <directory>/dfs-lock                held while the store is open
//! <directory>/dfs-scrub               how far its scrub is
//! <directory>/chunks/<xx>/<id>.v1     a large chunk: data, path and block checksums, head
//! <directory>/segments/<n>-<salt>.v1  many small chunks: head, path and block checksums, data
//! <directory>/segments/<n>-<salt>.idx what the heads of a closed segment say
//! ```
//!
//! Locations are kept only in memory and found again at each start; the location of a chunk
//! determines its format, so that another layout can coexist with these two. Each part of the work
//! has a module:
//!
//! | question | module |
//! |---|---|
//! | whose disks are these | [`open`], [`agreement`], [`identity_file`], [`identities`] |
//! | what is on them | [`recover`], [`scan`], [`segment_index`] |
//! | what does a replica look like | [`record`], [`segments`] |
//! | how does a chunk get there, and away | [`writer`], [`unsealed_file`] and [`file_replicas`] when large, [`commit`] when small |
//! | how is a replica of unknown origin made durable | [`restamp`] |
//! | what is there, and is there room | [`index`], [`replicas`], [`space`] |
//! | one disk | [`volume`] |
//! | when it is out of service, slow or hung | [`failure`], [`watchdog`], [`reading`], [`reopen`] |
//! | what tells replicas apart | [`stamps`] |
//! | is everything still there | [`missing`], [`scrub_file`] |

mod agreement;
mod commit;
mod config;
mod failure;
mod file_replicas;
mod identities;
mod identity_file;
mod index;
mod missing;
mod open;
mod read;
mod reading;
mod recent;
mod record;
mod recover;
mod reopen;
mod replicas;
mod restamp;
mod scan;
mod scrub_file;
mod segment_index;
mod segments;
mod space;
mod stamps;
mod unread_heads;
mod unsealed_file;
mod volume;
mod watchdog;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{
    BLOCK_SIZE, ByteSize, ChunkId, DiskId, Level, Part, Random, ReplicaRef, block_count,
};
use tokio::time::Instant;

use self::identities::Identities;
use self::index::{Entry, Index, Place};
use self::open::Folder;
use self::read::{READ_MAX, Verified};
use self::record::{Layout, State};
use self::reopen::Attempt;
use self::space::{Reservation, share_file_systems};
use self::volume::Disk;
use self::writer::{SMALL_MAX, Writer};
use crate::{
    Blocks, ChunkHeader, ChunkStore, ChunkWriter, DamagedHead, DiskUsage, Fs, Identity,
    IdentityStore, OpenError, Pool, ReadPace, Registration, SealedChunk, StoreError,
};

pub use config::{Config, DiskConfig};

const CHUNKS: &str = "chunks";
const SEGMENTS: &str = "segments";

/// Maximum length of a path in a chunk's record.
const PATH_MAX: usize = 4096;

/// The chunk store on the disks of one datanode.
pub struct DiskStore {
    index: Arc<Index>,
    disks: Vec<Arc<Disk>>,
    identities: Arc<Identities>,
    /// The newest write level that is read.
    level: Level,
    is_closed: AtomicBool,
}

impl DiskStore {
    /// Opens the store: locks the directories, reads or creates the identity, and finds exactly the
    /// sealed chunks. All disks are opened in parallel, each with as many threads as `pool`. A disk
    /// that takes longer than [`Config::read_within`] to read is starting; see
    /// [`IdentityStore::reopen_disks`].
    ///
    /// Directories that are all empty become a new node; an empty one among others becomes a new disk of
    /// the node, unless a disk of the node was in it: that one is missing, as is one that is locked
    /// or hangs; see [`IdentityStore::reopen_disks`]. A disk that cannot be opened for another reason
    /// has failed; one that missed a registration is returning. Fails if no disk
    /// can be opened and says which node it belongs to, or if disks do not belong together.
    pub async fn open(
        config: Config,
        fs: Arc<dyn Fs>,
        pool: Pool,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        if config.disks.is_empty() {
            return Err(OpenError::NoDisks);
        }
        let folders = Folder::all(&config, &fs, &pool);
        let mut opening = Vec::new();
        for folder in &folders {
            let (fs, path, level) = (Arc::clone(&folder.fs), folder.path.clone(), config.level);
            opening.push(folder.pool.start(move || Folder::take(&*fs, &path, level)).await);
        }
        let (mut found, mut unfinished) = (Vec::new(), Vec::new());
        for (mut opening, folder) in opening.into_iter().zip(&folders) {
            let opened = folder.watch.unless_hung(&mut opening).await;
            unfinished.push(opened.is_none().then_some(opening));
            let opened = opened.ok_or_else(|| OpenError::Hung(folder.path.clone()));
            let opened = opened.and_then(|opened| opened.unwrap_or_else(|panic| Err(panic.into())));
            found.push(match opened {
                Err(error @ OpenError::NewerLevel { .. }) => return Err(error),
                opened => opened,
            });
        }
        let agreed = open::agree(&config, folders, found, &random)?;
        let open::Agreed { identity, settled, known, index, disks, new } = agreed;
        for (disk, opening) in disks.iter().zip(unfinished) {
            *disk.attempt.lock().await = opening.map(Attempt::Opening);
        }
        open::sync_parents(new).await;
        let identities = Identities::new(identity, settled, known, disks.clone());
        let hanging = {
            let mut changing = identities.lock().await;
            identities.start(&mut changing).await.map_err(OpenError::NoIdentity)?
        };
        for disk in &disks {
            disk.commits.open(disk.pool.reserve().await);
            let hangs = hanging.iter().find(|(hanging, _)| *hanging == disk.id);
            if hangs.is_some() || disk.has_identity_of_start() {
                let reading = disk.start_reading().await;
                *disk.attempt.lock().await = Some(match hangs {
                    Some((_, registration)) => Attempt::Scanning(*registration, reading),
                    None => Attempt::Reading(reading),
                });
            }
        }
        let until = Instant::now() + config.read_within;
        for disk in &disks {
            disk.read_until(until).await;
        }
        let (identities, level) = (Arc::new(identities), config.level);
        Ok(Self { index, disks, identities, level, is_closed: AtomicBool::new(false) })
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Returns the disk and the entry of a sealed replica.
    fn find(&self, replica: ReplicaRef) -> Result<(Arc<Disk>, Entry), StoreError> {
        self.check_open()?;
        let ReplicaRef { chunk, part, disk, stamp } = replica;
        let disk = self.disks.iter().find(|it| it.id == disk && part == Part::WHOLE);
        let found = disk.and_then(|disk| Some((disk, self.index.find(chunk, disk.number, stamp)?)));
        let (disk, entry) = found.ok_or(StoreError::NotFound(chunk))?;
        Ok((Arc::clone(disk), entry))
    }

    /// Reserves the first bytes of a chunk on the disk with the most room.
    fn reserve(&self, bytes: u64) -> Option<(Arc<Disk>, Reservation)> {
        let mut best: Vec<_> = self.disks.iter().map(|disk| (disk.usage(), disk)).collect();
        best.retain(|(usage, _)| usage.state.takes_chunks() && !usage.is_full);
        best.sort_by_key(|(usage, _)| std::cmp::Reverse(usage.free));
        best.into_iter()
            .find_map(|(_, disk)| Some((Arc::clone(disk), Reservation::new(&disk.space, bytes)?)))
    }

    /// Marks a replica as live or set aside.
    async fn mark(&self, replica: ReplicaRef, state: State) -> Result<(), StoreError> {
        let (disk, entry) = self.find(replica)?;
        let ReplicaRef { chunk, stamp, .. } = replica;
        let is_there = match entry.place {
            Place::Record { .. } => disk.mark_record(chunk, stamp, state).await?,
            Place::File => {
                change_file(disk, move |disk| disk.mark_file(chunk, &entry, state)).await?
            }
        };
        if is_there { Ok(()) } else { Err(StoreError::NotFound(chunk)) }
    }

    fn describe(&self, chunk: ChunkId, entry: &Entry) -> SealedChunk {
        self.disks[usize::from(entry.disk)].describe(chunk, entry)
    }

    fn no_space(&self) -> StoreError {
        let disks = self.disks.iter().map(|disk| {
            let (usage, folder) = (disk.usage(), disk.path().display());
            let (free, capacity) = (ByteSize(usage.free), ByteSize(usage.capacity));
            if usage.state.takes_chunks() {
                format!("{folder} has {free} of {capacity} left")
            } else {
                format!("{folder} is {}", usage.state)
            }
        });
        StoreError::NoSpace(disks.collect::<Vec<_>>().join(", "))
    }
}

/// Runs a change of a large chunk's replica on the threads of its disk.
async fn change_file<F>(disk: Arc<Disk>, change: F) -> Result<bool, StoreError>
where
    F: FnOnce(&Disk) -> Result<bool, StoreError> + Send + 'static,
{
    let permit = disk.admit(0).await?;
    let changed = Arc::clone(&disk);
    let job = move || {
        let changed = change(&changed);
        drop(permit);
        changed
    };
    disk.run(job).await?
}

fn check_path(header: &ChunkHeader) -> Result<(), StoreError> {
    let length = header.path.len();
    if length > PATH_MAX {
        let what = format!("its path of {length} bytes is longer than {PATH_MAX}");
        return Err(StoreError::Mismatch { chunk: header.chunk, what });
    }
    Ok(())
}

/// Returns the bytes to reserve for a chunk at first.
fn first_bytes(header: &ChunkHeader) -> u64 {
    Layout::of_file(header.path.len() as u16, header.max_length.min(SMALL_MAX)).end
}

#[async_trait]
impl IdentityStore for DiskStore {
    fn identity(&self) -> Identity {
        self.identities.current()
    }

    async fn store_registration(&self, registration: Registration) -> Result<(), StoreError> {
        let mut changing = self.identities.lock().await;
        self.check_open()?;
        self.identities.register(registration, false, &mut changing).await
    }

    async fn rejoin(&self, registration: Registration) -> Result<(), StoreError> {
        let mut changing = self.identities.lock().await;
        self.check_open()?;
        self.identities.register(registration, true, &mut changing).await
    }

    async fn raise_level(&self, level: Level) -> Result<(), StoreError> {
        let changing = self.identities.lock().await;
        self.check_open()?;
        self.identities.raise_level(level, &changing).await
    }

    async fn settle_disk(&self, disk: DiskId) -> Result<(), StoreError> {
        let changing = self.identities.lock().await;
        self.check_open()?;
        self.identities.settle(disk, &changing).await
    }

    async fn forget_disks(&self, disks: &[DiskId]) -> Result<(), StoreError> {
        let mut changing = self.identities.lock().await;
        self.check_open()?;
        self.identities.forget(disks, &mut changing).await
    }

    async fn reopen_disks(&self) -> bool {
        let mut is_any_back = false;
        for disk in &self.disks {
            let is_open = self.check_open().is_ok();
            is_any_back |= is_open && disk.reopen(&self.identities, self.level).await;
            is_any_back |= is_open && disk.read_heads_again().await;
            if is_open && !disk.is_out_of_service() {
                let (on, now) = (Arc::clone(disk), Instant::now());
                // What a disk that hangs does not write is written later.
                let _ = disk.run(move || on.write_outdated_indexes(now)).await;
            }
        }
        is_any_back
    }

    fn set_retiring(&self, disks: &[DiskId]) {
        for disk in &self.disks {
            disk.set_retiring(disks.contains(&disk.id));
        }
    }
}

#[async_trait]
impl ChunkStore for DiskStore {
    async fn create(&self, header: ChunkHeader) -> Result<Box<dyn ChunkWriter>, StoreError> {
        self.check_open()?;
        check_path(&header)?;
        let retires = |disk: u16| self.disks[usize::from(disk)].is_retiring();
        let claim = self.index.claim(header.chunk, retires)?;
        let bytes = first_bytes(&header);
        let mut reserved = self.reserve(bytes);
        if reserved.is_none() {
            // Others may have freed space since the file systems were last queried.
            for disk in self.disks.iter().filter(|disk| !disk.is_out_of_service()) {
                let refreshed = Arc::clone(disk);
                // A disk that hangs is not chosen.
                let _ = disk.run(move || refreshed.refresh_space()).await;
            }
            reserved = self.reserve(bytes);
        }
        let (disk, reservation) = reserved.ok_or_else(|| self.no_space())?;
        Ok(Box::new(Writer::new(disk, header, claim, reservation)))
    }

    async fn replace(
        &self,
        header: ChunkHeader,
        replica: ReplicaRef,
    ) -> Result<Box<dyn ChunkWriter>, StoreError> {
        check_path(&header)?;
        let (disk, old) = self.find(replica)?;
        let claim = self.index.claim_replacement(replica.chunk, &old)?;
        let reservation = Reservation::new(&disk.space, first_bytes(&header));
        let reservation = reservation.ok_or_else(|| self.no_space())?;
        Ok(Box::new(Writer::new(disk, header, claim, reservation)))
    }

    async fn replicas(&self, chunk: ChunkId) -> Result<Vec<SealedChunk>, StoreError> {
        self.check_open()?;
        let mut found = self.index.replicas(chunk);
        found.sort_by_key(|entry| std::cmp::Reverse(entry.stamp));
        Ok(found.iter().map(|entry| self.describe(chunk, entry)).collect())
    }

    async fn stat(&self, replica: ReplicaRef) -> Result<Option<SealedChunk>, StoreError> {
        match self.find(replica) {
            Ok((disk, entry)) => Ok(Some(disk.describe(replica.chunk, &entry))),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn header(&self, replica: ReplicaRef) -> Result<ChunkHeader, StoreError> {
        let (disk, entry) = self.find(replica)?;
        let on = Arc::clone(&disk);
        disk.run(move || on.read_header(replica.chunk, &entry)).await?
    }

    async fn read(
        &self,
        replica: ReplicaRef,
        offset: u64,
        length: u64,
    ) -> Result<Blocks, StoreError> {
        let (disk, entry) = self.find(replica)?;
        let on = Arc::clone(&disk);
        disk.run(move || on.read_blocks(replica.chunk, &entry, offset, length)).await?
    }

    async fn verify(
        &self,
        replica: ReplicaRef,
        pace: &dyn ReadPace,
    ) -> Result<Option<u64>, StoreError> {
        let (disk, entry) = self.find(replica)?;
        let blocks = block_count(entry.length);
        let mut first = 0;
        while first < blocks {
            let left = entry.length - first * BLOCK_SIZE as u64;
            pace.admit(left.min(READ_MAX)).await;
            let on = Arc::clone(&disk);
            let step = move || match on.verify_step(replica.chunk, &entry, first, false)? {
                Verified::Bad(_) => on.verify_step(replica.chunk, &entry, first, true),
                good @ Verified::Good(_) => Ok(good),
            };
            match disk.run(step).await?? {
                Verified::Bad(block) => return Ok(Some(block)),
                Verified::Good(blocks) => first += blocks,
            }
        }
        // Each step has compared its blocks with checksums that combine to the seal.
        Ok(None)
    }

    async fn set_aside(&self, replica: ReplicaRef) -> Result<(), StoreError> {
        self.mark(replica, State::SetAside).await
    }

    async fn reinstate(&self, replica: ReplicaRef) -> Result<(), StoreError> {
        self.mark(replica, State::Live).await
    }

    async fn restamp(&self, replica: ReplicaRef) -> Result<SealedChunk, StoreError> {
        let (disk, entry) = self.find(replica)?;
        let claim = self.index.claim_replacement(replica.chunk, &entry)?;
        let permit = disk.admit(0).await?;
        let on = Arc::clone(&disk);
        let restamp = move || {
            let restamped = on.restamp(replica.chunk, &entry);
            drop((claim, permit));
            restamped
        };
        disk.run(restamp).await?
    }

    fn verdict_number(&self) -> u64 {
        self.disks.first().map_or(0, |disk| disk.stamps.next_number())
    }

    async fn list(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<SealedChunk>, StoreError> {
        self.check_open()?;
        let found = self.index.list(after, limit).into_iter();
        Ok(found.map(|(id, entry)| self.describe(id, &entry)).collect())
    }

    async fn probe(&self, disk: DiskId) -> Result<(), StoreError> {
        self.check_open()?;
        let disk = self.disks.iter().find(|it| it.id == disk).ok_or(StoreError::NoDisk(disk))?;
        let on = Arc::clone(disk);
        disk.run(move || on.probe()).await?
    }

    fn fail_disk(&self, disk: DiskId, why: &str) {
        if let Some(disk) = self.disks.iter().find(|it| it.id == disk) {
            disk.fail(&why);
        }
    }

    async fn delete(&self, replica: ReplicaRef) -> Result<bool, StoreError> {
        self.check_open()?;
        let ReplicaRef { chunk, part, disk, stamp } = replica;
        let disk = self.disks.iter().find(|it| it.id == disk && part == Part::WHOLE);
        let Some(disk) = disk.map(Arc::clone) else { return Ok(false) };
        let found = self.index.find_unclaimed(chunk, disk.number, stamp)?;
        let Some(entry) = found else { return Ok(false) };
        match entry.place {
            Place::Record { .. } => disk.mark_record(chunk, stamp, State::Dead).await,
            Place::File => change_file(disk, move |disk| disk.delete_file(chunk, &entry)).await,
        }
    }

    fn damaged(&self) -> Vec<DamagedHead> {
        self.disks.iter().flat_map(|disk| disk.heads().clone()).collect()
    }

    fn usage(&self) -> Vec<DiskUsage> {
        let mut disks: Vec<_> = self.disks.iter().map(|disk| disk.usage()).collect();
        share_file_systems(&mut disks);
        disks
    }

    async fn close(&self, within: Duration) {
        self.is_closed.store(true, Ordering::Release);
        let drained = async {
            for disk in &self.disks {
                // Nothing on a hanging disk is acknowledged.
                let is_drained = disk.unless_hung(disk.drain()).await.is_ok();
                if is_drained && !disk.is_out_of_service() {
                    let on = Arc::clone(disk);
                    let _ = disk.run(move || on.close_segments()).await;
                }
            }
            drop(self.identities.lock().await);
        };
        if tokio::time::timeout(within, drained).await.is_err() {
            tracing::warn!("the chunk store was closed with writes in progress");
        }
        self.disks.iter().for_each(|disk| disk.unlock());
    }
}

//! The chunk store on disks.
//!
//! ```text
//! <directory>/dfs-identity            whose disk it is
//! <directory>/dfs-lock                held while the store is open
//! <directory>/chunks/<xx>/<id>.v1     a large chunk: data, path and block checksums, head
//! <directory>/segments/<n>-<salt>.v1  many small chunks: head, path and block checksums, data
//! ```
//!
//! Locations are kept only in memory and found again at each start; the location of a chunk
//! determines its format, so that another layout can coexist with these two. Each part of the work
//! has a module:
//!
//! | question | module |
//! |---|---|
//! | whose disks are these, what is on them | [`open`], [`identity_file`], [`identities`], [`scan`] |
//! | what does a replica look like | [`record`], [`segments`] |
//! | how is a chunk written and removed | [`writer`], [`unsealed_file`] and [`file_replicas`] when large, [`commit`] when small |
//! | what is stored, and is there room | [`index`], [`space`] |
//! | one disk and its health | [`volume`] |

mod agreement;
mod commit;
mod config;
mod file_replicas;
mod identities;
mod identity_file;
mod index;
mod open;
mod read;
mod recent;
mod record;
mod scan;
mod segments;
mod space;
mod unsealed_file;
mod volume;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{ByteSize, ChunkId, Crc32c, Level, Random, RegistrationNumber, Stamp, block_count};

use self::identities::Identities;
use self::index::{Entry, Index, Place};
use self::read::Verified;
use self::record::{Layout, State};
use self::space::{Reservation, share_file_systems};
use self::volume::Disk;
use self::writer::{SMALL_MAX, Writer};
use crate::{
    Blocks, ChunkHeader, ChunkStore, ChunkWriter, DiskUsage, Fs, Identity, IdentityStore,
    OpenError, Pool, Registration, SealedChunk, StoreError,
};

pub use config::{Config, DiskConfig};

const CHUNKS: &str = "chunks";
const SEGMENTS: &str = "segments";

/// Maximum length of a path in a chunk's record.
const PATH_MAX: usize = 4096;

/// The chunk store on the disks of one datanode.
pub struct DiskStore {
    pool: Pool,
    index: Arc<Index>,
    disks: Vec<Arc<Disk>>,
    identities: Arc<Identities>,
    is_closed: AtomicBool,
}

impl DiskStore {
    /// Opens the store: locks the directories, reads or creates the identity, and finds exactly the
    /// sealed chunks. Disks that are all empty become a new node; an empty one among others becomes
    /// a replaced disk of the same node. A disk that cannot be written, or that holds an image
    /// older than the node's last registration, is kept out of service if another one is in
    /// service.
    pub async fn open(
        config: Config,
        fs: Arc<dyn Fs>,
        pool: Pool,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        let opened = pool.run(move || open::open(&config, &fs, &random)).await??;
        let open::Opened { identity, settled, starts, index, disks } = opened;
        let mut scans = Vec::new();
        for disk in &disks {
            disk.commits.open(pool.reserve().await);
            let disk = Arc::clone(disk);
            scans.push(pool.start(move || open::recover(&disk)).await);
        }
        let mut doubles = Vec::new();
        for (scan, disk) in scans.into_iter().zip(&disks) {
            for (chunk, entry) in scan.await? {
                disk.space.add(entry.size());
                doubles.extend(index.adopt(chunk, entry).map(|old| (chunk, old)));
            }
        }
        for (chunk, entry) in doubles {
            let disk = Arc::clone(&disks[usize::from(entry.disk)]);
            pool.run(move || disk.erase(chunk, &entry)).await?;
        }
        let identities = Arc::new(Identities::new(identity, settled, starts, disks.clone()));
        Ok(Self { pool, index, disks, identities, is_closed: AtomicBool::new(false) })
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Returns the disk and the entry of a sealed replica.
    fn find(&self, chunk: ChunkId) -> Result<(Arc<Disk>, Entry), StoreError> {
        self.check_open()?;
        let entry = self.index.get(chunk).ok_or(StoreError::NotFound(chunk))?;
        Ok((Arc::clone(&self.disks[usize::from(entry.disk)]), entry))
    }

    /// Reserves the first bytes of a chunk on the disk with the most room.
    fn reserve(&self, bytes: u64) -> Option<(Arc<Disk>, Reservation)> {
        let mut best: Vec<_> = self.disks.iter().map(|disk| (disk.usage(), disk)).collect();
        best.retain(|(usage, _)| usage.state.takes_chunks() && !usage.is_full);
        best.sort_by_key(|(usage, _)| std::cmp::Reverse(usage.free));
        best.into_iter()
            .find_map(|(_, disk)| Some((Arc::clone(disk), Reservation::new(&disk.space, bytes)?)))
    }

    fn no_space(&self) -> StoreError {
        let disks = self.disks.iter().map(|disk| {
            let (usage, folder) = (disk.usage(), disk.path().display());
            let (free, capacity) = (ByteSize(usage.free), ByteSize(usage.capacity));
            if !usage.state.takes_chunks() {
                format!("{folder} is {}", usage.state)
            } else {
                format!("{folder} has {free} of {capacity} left")
            }
        });
        StoreError::NoSpace(disks.collect::<Vec<_>>().join(", "))
    }

    /// Runs a change of the node's identity on the pool, one at a time. The change completes even
    /// if the future is dropped.
    async fn change_identities<F>(&self, change: F) -> Result<(), StoreError>
    where
        F: FnOnce(&Identities, &mut RegistrationNumber) -> Result<(), StoreError> + Send + 'static,
    {
        let mut settled = self.identities.lock().await;
        self.check_open()?;
        let identities = Arc::clone(&self.identities);
        self.pool.run(move || change(&identities, &mut settled)).await?
    }

    /// Runs a change of a large chunk's replica on the pool.
    async fn change_file<F>(&self, disk: Arc<Disk>, change: F) -> Result<bool, StoreError>
    where
        F: FnOnce(&Disk) -> Result<bool, StoreError> + Send + 'static,
    {
        let permit = disk.admit(0).await?;
        let job = move || {
            let changed = change(&disk);
            drop(permit);
            changed
        };
        self.pool.run(job).await?
    }
}

#[async_trait]
impl IdentityStore for DiskStore {
    fn identity(&self) -> Identity {
        self.identities.current()
    }

    async fn store_registration(&self, registration: Registration) -> Result<(), StoreError> {
        self.change_identities(move |all, settled| all.register(registration, settled)).await
    }

    async fn raise_level(&self, level: Level) -> Result<(), StoreError> {
        self.change_identities(move |all, settled| all.raise_level(level, *settled)).await
    }
}

#[async_trait]
impl ChunkStore for DiskStore {
    async fn create(&self, header: ChunkHeader) -> Result<Box<dyn ChunkWriter>, StoreError> {
        self.check_open()?;
        let path_length = header.path.len();
        if path_length > PATH_MAX {
            let what = format!("its path of {path_length} bytes is longer than {PATH_MAX}");
            return Err(StoreError::Mismatch { chunk: header.chunk, what });
        }
        let claim = self.index.claim(header.chunk)?;
        let first = header.max_length.min(SMALL_MAX);
        let bytes = Layout::of_file(path_length as u16, first).end;
        let mut reserved = self.reserve(bytes);
        if reserved.is_none() {
            // Others may have freed space since the file systems were last queried.
            let disks = self.disks.clone();
            self.pool.run(move || disks.iter().for_each(|disk| disk.refresh_space())).await?;
            reserved = self.reserve(bytes);
        }
        let (disk, reservation) = reserved.ok_or_else(|| self.no_space())?;
        Ok(Box::new(Writer::new(self.pool.clone(), disk, header, claim, reservation)))
    }

    async fn stat(&self, chunk: ChunkId) -> Result<Option<SealedChunk>, StoreError> {
        match self.find(chunk) {
            Ok((disk, entry)) => Ok(Some(disk.describe(chunk, &entry))),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn header(&self, chunk: ChunkId) -> Result<ChunkHeader, StoreError> {
        let (disk, entry) = self.find(chunk)?;
        self.pool.run(move || disk.read_header(chunk, &entry)).await?
    }

    async fn read(&self, chunk: ChunkId, offset: u64, length: u64) -> Result<Blocks, StoreError> {
        let (disk, entry) = self.find(chunk)?;
        if entry.is_set_aside {
            return Err(StoreError::SetAside(chunk));
        }
        self.pool.run(move || disk.read_blocks(chunk, &entry, offset, length)).await?
    }

    async fn verify(&self, chunk: ChunkId) -> Result<Option<u64>, StoreError> {
        let (disk, entry) = self.find(chunk)?;
        let blocks = block_count(entry.seal.length);
        let (mut first, mut whole) = (0, Crc32c::default());
        while first < blocks {
            let disk = Arc::clone(&disk);
            match self.pool.run(move || disk.verify_step(chunk, &entry, first)).await?? {
                Verified::Bad(block) => return Ok(Some(block)),
                Verified::Good(crcs) => {
                    for crc in crcs {
                        let left = entry.seal.length - first * dfs_types::BLOCK_SIZE as u64;
                        let size = left.min(dfs_types::BLOCK_SIZE as u64);
                        whole = whole.combine(crc, size as usize);
                        first += 1;
                    }
                }
            }
        }
        // Blocks and their checksums match each other, but not the seal.
        Ok((whole != entry.seal.crc32c).then_some(0))
    }

    async fn set_aside(&self, chunk: ChunkId, stamp: Stamp) -> Result<(), StoreError> {
        let (disk, entry) = self.find(chunk)?;
        let is_there = match entry.place {
            _ if entry.stamp != stamp => false,
            Place::Record { .. } => {
                disk.mark_record(&self.pool, chunk, stamp, State::SetAside).await?
            }
            Place::File => {
                self.change_file(disk, move |disk| disk.set_file_aside(chunk, &entry)).await?
            }
        };
        if is_there { Ok(()) } else { Err(StoreError::NotFound(chunk)) }
    }

    async fn list(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<SealedChunk>, StoreError> {
        self.check_open()?;
        let found = self.index.list(after, limit).into_iter();
        Ok(found
            .map(|(id, entry)| self.disks[usize::from(entry.disk)].describe(id, &entry))
            .collect())
    }

    async fn delete(&self, chunk: ChunkId, stamp: Stamp) -> Result<bool, StoreError> {
        let (disk, entry) = match self.find(chunk) {
            Ok((disk, entry)) if entry.stamp == stamp => (disk, entry),
            Ok(_) | Err(StoreError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        match entry.place {
            Place::Record { .. } => disk.mark_record(&self.pool, chunk, stamp, State::Dead).await,
            Place::File => {
                self.change_file(disk, move |disk| disk.delete_file(chunk, &entry)).await
            }
        }
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
                disk.drain().await;
            }
            drop(self.identities.lock().await);
        };
        if tokio::time::timeout(within, drained).await.is_err() {
            tracing::warn!("the chunk store was closed with writes in progress");
        }
        self.disks.iter().for_each(|disk| disk.unlock());
    }
}

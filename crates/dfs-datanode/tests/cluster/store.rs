//! An in-memory store whose disk can hang or fail.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_chunkstore::{
    Blocks, ChunkHeader, ChunkSeal, ChunkStore, ChunkWriter, DamagedHead, DiskUsage, Identity,
    IdentityStore, MemoryStore, ReadPace, Registration, ScrubProgress, ScrubStore, SealedChunk,
    StoreError,
};
use dfs_types::{BLOCK_SIZE, ChunkId, Crc32c, DiskId, DiskState, NodeId, ReplicaRef};
use tokio::sync::watch;

/// Capacity of a store.
const CAPACITY: u64 = 1 << 30;

/// Operations in which a disk hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hang {
    /// Sealing.
    Seal,
    /// Sealing and writing.
    Write,
    /// Everything, including lookups, listings and deletions.
    Everything,
}

/// Writes, seals and closes only while its disk does not hang.
#[derive(Clone)]
pub(crate) struct TestStore {
    pub(crate) memory: MemoryStore,
    hangs: watch::Sender<Option<Hang>>,
    /// Number of hanging calls.
    hung: watch::Sender<usize>,
    /// Number of verifications of complete replicas.
    verified: watch::Sender<usize>,
    /// Reads from this offset on return a wrong first byte.
    damaged_from: watch::Sender<u64>,
    /// Blocks of every chunk with a wrong first byte.
    bad_blocks: watch::Sender<BTreeSet<u64>>,
    /// Blocks of every chunk that the disk does not return.
    unreadable_blocks: watch::Sender<BTreeSet<u64>>,
    /// The disk is not available since the start.
    is_missing: watch::Sender<bool>,
    /// A missing disk may come into service.
    is_mounted: watch::Sender<bool>,
    /// The disk returns nothing at all.
    is_dark: watch::Sender<bool>,
    /// The disk is out of service: the store finds nothing on it.
    is_failed: watch::Sender<bool>,
    /// The disk missed a registration.
    is_returning: watch::Sender<bool>,
    /// Chunks whose heads the disk did not return at the start, and whether it still may.
    lost_heads: watch::Sender<(Vec<ChunkId>, bool)>,
}

impl TestStore {
    pub(crate) fn new(node: NodeId) -> Self {
        Self::with_capacity(node, CAPACITY)
    }

    pub(crate) fn with_capacity(node: NodeId, capacity: u64) -> Self {
        Self {
            memory: MemoryStore::new(node, capacity),
            hangs: watch::Sender::new(None),
            hung: watch::Sender::new(0),
            verified: watch::Sender::new(0),
            damaged_from: watch::Sender::new(u64::MAX),
            bad_blocks: watch::Sender::default(),
            unreadable_blocks: watch::Sender::default(),
            is_missing: watch::Sender::new(false),
            is_mounted: watch::Sender::new(false),
            is_dark: watch::Sender::new(false),
            is_failed: watch::Sender::new(false),
            is_returning: watch::Sender::new(false),
            lost_heads: watch::Sender::default(),
        }
    }

    /// Damages all chunks from this offset on.
    pub(crate) fn damage_from(&self, offset: u64) {
        self.damaged_from.send_replace(offset);
    }

    /// Damages exactly these blocks of every chunk.
    pub(crate) fn damage_blocks(&self, blocks: &[u64]) {
        self.bad_blocks.send_replace(blocks.iter().copied().collect());
    }

    /// Makes exactly these blocks of every chunk unreadable.
    pub(crate) fn hide_blocks(&self, blocks: &[u64]) {
        self.unreadable_blocks.send_replace(blocks.iter().copied().collect());
    }

    /// Makes the disk missing.
    pub(crate) fn unmount(&self) {
        self.is_missing.send_replace(true);
    }

    /// Lets a missing disk come into service when it is opened again.
    pub(crate) fn mount(&self) {
        self.is_mounted.send_replace(true);
    }

    /// Makes the whole disk unreadable, or readable again.
    pub(crate) fn set_dark(&self, is_dark: bool) {
        self.is_dark.send_replace(is_dark);
    }

    /// Takes the disk out of service, or back into it.
    pub(crate) fn set_failed(&self, is_failed: bool) {
        self.is_failed.send_replace(is_failed);
    }

    /// Removes the bytes of a chunk unnoticed.
    pub(crate) fn lose(&self, chunk: ChunkId) {
        assert!(self.memory.lose(chunk));
    }

    /// Hides chunks as if the disk had not returned their heads at the start; it may do so later if
    /// they are unread.
    pub(crate) fn lose_heads(&self, chunks: &[ChunkId], are_unread: bool) {
        self.lost_heads.send_replace((chunks.to_vec(), are_unread));
    }

    /// Makes the disk one that missed a registration.
    pub(crate) fn return_disk(&self) {
        self.is_returning.send_replace(true);
    }

    fn disk(&self) -> DiskId {
        self.memory.usage()[0].disk
    }

    fn is_failed(&self) -> bool {
        *self.is_failed.borrow()
    }

    pub(crate) fn hang(&self, hang: Hang) {
        self.hangs.send_replace(Some(hang));
    }

    pub(crate) fn go_on(&self) {
        self.hangs.send_replace(None);
    }

    /// Waits until a call hangs.
    pub(crate) async fn is_stuck(&self) {
        self.are_stuck(1).await;
    }

    /// Waits until this many calls hang.
    pub(crate) async fn are_stuck(&self, calls: usize) {
        self.hung.subscribe().wait_for(|hung| *hung >= calls).await.unwrap();
    }

    /// Returns the number of calls that hang now.
    pub(crate) fn stuck(&self) -> usize {
        *self.hung.borrow()
    }

    /// Returns the number of verifications of complete replicas so far.
    pub(crate) fn verified(&self) -> usize {
        *self.verified.borrow()
    }

    /// Returns all sealed replicas.
    pub(crate) async fn sealed(&self) -> Vec<SealedChunk> {
        self.memory.list(None, usize::MAX).await.unwrap()
    }

    /// Waits while the disk hangs in this operation.
    async fn answers(&self, what: Hang) {
        let mut hangs = self.hangs.subscribe();
        let is_free = |hangs: &Option<Hang>| hangs.is_none_or(|hangs| hangs < what);
        if is_free(&hangs.borrow()) {
            return;
        }
        self.hung.send_modify(|hung| *hung += 1);
        hangs.wait_for(is_free).await.unwrap();
        self.hung.send_modify(|hung| *hung -= 1);
    }
}

#[async_trait]
impl IdentityStore for TestStore {
    fn identity(&self) -> Identity {
        self.memory.identity()
    }

    async fn store_registration(&self, registration: Registration) -> Result<(), StoreError> {
        self.memory.store_registration(registration).await
    }

    async fn rejoin(&self, registration: Registration) -> Result<(), StoreError> {
        self.memory.rejoin(registration).await
    }

    async fn raise_level(&self, level: dfs_types::Level) -> Result<(), StoreError> {
        self.memory.raise_level(level).await
    }

    async fn settle_disk(&self, disk: DiskId) -> Result<(), StoreError> {
        self.memory.settle_disk(disk).await
    }

    async fn forget_disks(&self, disks: &[DiskId]) -> Result<(), StoreError> {
        self.memory.forget_disks(disks).await
    }

    async fn reopen_disks(&self) -> bool {
        let is_back = *self.is_missing.borrow() && *self.is_mounted.borrow();
        if is_back {
            self.is_missing.send_replace(false);
        }
        is_back
    }

    fn set_retiring(&self, disks: &[DiskId]) {
        self.memory.set_retiring(disks);
    }
}

#[async_trait]
impl ScrubStore for TestStore {
    async fn scrub_progress(&self, disk: DiskId) -> Result<ScrubProgress, StoreError> {
        self.memory.scrub_progress(disk).await
    }

    async fn store_scrub_progress(
        &self,
        disk: DiskId,
        progress: ScrubProgress,
    ) -> Result<(), StoreError> {
        self.memory.store_scrub_progress(disk, progress).await
    }
}

#[async_trait]
impl ChunkStore for TestStore {
    async fn create(&self, header: ChunkHeader) -> Result<Box<dyn ChunkWriter>, StoreError> {
        let inner = self.memory.create(header).await?;
        Ok(Box::new(Writer { inner, store: self.clone() }))
    }

    async fn replace(
        &self,
        header: ChunkHeader,
        replica: ReplicaRef,
    ) -> Result<Box<dyn ChunkWriter>, StoreError> {
        let inner = self.memory.replace(header, replica).await?;
        Ok(Box::new(Writer { inner, store: self.clone() }))
    }

    async fn replicas(&self, chunk: ChunkId) -> Result<Vec<SealedChunk>, StoreError> {
        self.answers(Hang::Everything).await;
        if self.is_failed() {
            return Ok(Vec::new());
        }
        self.memory.replicas(chunk).await
    }

    async fn stat(&self, replica: ReplicaRef) -> Result<Option<SealedChunk>, StoreError> {
        self.answers(Hang::Everything).await;
        if self.is_failed() || self.lost_heads.borrow().0.contains(&replica.chunk) {
            return Ok(None);
        }
        self.memory.stat(replica).await
    }

    async fn header(&self, replica: ReplicaRef) -> Result<ChunkHeader, StoreError> {
        if self.is_failed() {
            return Err(StoreError::NotFound(replica.chunk));
        }
        self.memory.header(replica).await
    }

    async fn read(
        &self,
        replica: ReplicaRef,
        offset: u64,
        length: u64,
    ) -> Result<Blocks, StoreError> {
        if self.is_failed() {
            return Err(StoreError::NotFound(replica.chunk));
        }
        let mut blocks = self.memory.read(replica, offset, length).await?;
        let first = blocks.offset / BLOCK_SIZE as u64;
        let range = first..first + blocks.crcs.len() as u64;
        let is_hidden = self.unreadable_blocks.borrow().range(range.clone()).next().is_some();
        if is_hidden || *self.is_dark.borrow() {
            return Err(StoreError::Unreadable {
                chunk: replica.chunk,
                what: "a bad sector".to_owned(),
            });
        }
        let mut data = blocks.data.to_vec();
        for bad in self.bad_blocks.borrow().range(range) {
            data[(bad - first) as usize * BLOCK_SIZE] ^= 1;
        }
        blocks.data = data.into();
        if offset >= *self.damaged_from.borrow() {
            let mut data = blocks.data.to_vec();
            data[0] ^= 1;
            blocks.data = data.into();
        }
        Ok(blocks)
    }

    async fn verify(
        &self,
        replica: ReplicaRef,
        pace: &dyn ReadPace,
    ) -> Result<Option<u64>, StoreError> {
        self.verified.send_modify(|verified| *verified += 1);
        let length = self.memory.stat(replica).await?.map_or(0, |found| found.length);
        let mut at = 0;
        loop {
            pace.admit(length.saturating_sub(at).min(1 << 20)).await;
            let blocks = self.read(replica, at, u64::MAX).await?;
            let length = blocks.data.len() as u64;
            let good = blocks.before_first_bad().data.len() as u64;
            if good < length {
                return Ok(Some((at + good) / BLOCK_SIZE as u64));
            }
            if length == 0 {
                return Ok(None);
            }
            at += length;
        }
    }

    async fn probe(&self, disk: DiskId) -> Result<(), StoreError> {
        if *self.is_dark.borrow() {
            let (disk, source) = (disk.to_string(), std::io::Error::other("a dark disk"));
            return Err(StoreError::Io { action: "reading the identity", disk, source });
        }
        self.memory.probe(disk).await
    }

    fn fail_disk(&self, disk: DiskId, why: &str) {
        self.memory.fail_disk(disk, why);
    }

    async fn set_aside(&self, replica: ReplicaRef) -> Result<(), StoreError> {
        self.memory.set_aside(replica).await
    }

    async fn reinstate(&self, replica: ReplicaRef) -> Result<(), StoreError> {
        self.memory.reinstate(replica).await
    }

    async fn restamp(&self, replica: ReplicaRef) -> Result<SealedChunk, StoreError> {
        self.memory.restamp(replica).await
    }

    fn verdict_number(&self) -> u64 {
        self.memory.verdict_number()
    }

    async fn list(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<SealedChunk>, StoreError> {
        self.answers(Hang::Everything).await;
        // A store may list a few more than the limit.
        self.memory.list(after, limit + 1).await
    }

    async fn delete(&self, replica: ReplicaRef) -> Result<bool, StoreError> {
        self.answers(Hang::Everything).await;
        if self.is_failed() {
            return Ok(false);
        }
        self.memory.delete(replica).await
    }

    fn damaged(&self) -> Vec<DamagedHead> {
        let (disk, (chunks, is_unread)) = (self.disk(), self.lost_heads.borrow().clone());
        let head = |chunk: ChunkId| {
            let path = chunk.to_string().into();
            DamagedHead { disk, chunk: Some(chunk), path, offset: None, is_unread }
        };
        chunks.into_iter().map(head).collect()
    }

    fn usage(&self) -> Vec<DiskUsage> {
        let mut disks = self.memory.usage();
        for disk in &mut disks {
            disk.has_unread_heads = self.lost_heads.borrow().1;
            if self.is_failed() {
                disk.state = DiskState::Failed;
            } else if *self.is_returning.borrow() {
                disk.state = DiskState::Returning;
            } else if *self.is_missing.borrow() {
                disk.state = DiskState::Missing;
            }
        }
        disks
    }

    async fn close(&self, within: Duration) {
        self.answers(Hang::Seal).await;
        self.memory.close(within).await;
    }
}

struct Writer {
    inner: Box<dyn ChunkWriter>,
    store: TestStore,
}

#[async_trait]
impl ChunkWriter for Writer {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn append(&mut self, data: Bytes, crcs: Vec<Crc32c>) -> Result<(), StoreError> {
        self.store.answers(Hang::Write).await;
        self.inner.append(data, crcs).await
    }

    async fn seal(self: Box<Self>, seal: ChunkSeal) -> Result<SealedChunk, StoreError> {
        let Self { inner, store } = *self;
        store.answers(Hang::Seal).await;
        inner.seal(seal).await
    }
}

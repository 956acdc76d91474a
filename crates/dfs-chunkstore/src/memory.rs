//! An in-memory chunk store for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dfs_types::{
    BLOCK_SIZE, ChunkId, Crc32c, DiskId, DiskState, Level, NodeId, NodeSecret, ReplicaRef, Sha256,
    Stamp, block_count,
};

use crate::identity::COUNTER_BITS;
use crate::{
    Blocks, ChunkHeader, ChunkSeal, ChunkStore, ChunkWriter, DamagedHead, DiskUsage, Identity,
    IdentityStore, ReadPace, Registration, ScrubProgress, ScrubStore, SealedChunk, StoreError,
};

/// Maximum bytes of one read.
const READ_MAX: usize = 1 << 20;

/// An in-memory chunk store: nothing is persistent. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    capacity: u64,
    used: u64,
    next_stamp: u64,
    sealed: BTreeMap<ChunkId, Replica>,
    claimed: BTreeSet<ChunkId>,
    is_closed: bool,
    is_retiring: bool,
    is_returning: bool,
    /// Why the disk is out of service, if it is.
    failed: Option<String>,
    scrub: ScrubProgress,
}

#[derive(Debug, Clone)]
struct Replica {
    header: ChunkHeader,
    seal: ChunkSeal,
    stamp: Stamp,
    data: Bytes,
    crcs: Vec<Crc32c>,
    is_set_aside: bool,
    /// True if it is only listed.
    is_lost: bool,
}

/// Returns a secret derived from the node, the same whenever its store is created again.
fn secret_of(node: NodeId) -> NodeSecret {
    let digest = Sha256::of(&node.to_bytes());
    NodeSecret::from_slice(&digest.0).expect("a digest is as long as a secret")
}

impl MemoryStore {
    /// Creates an empty store of `capacity` bytes for a node.
    pub fn new(node: NodeId, capacity: u64) -> Self {
        let state = State {
            identity: Identity {
                node,
                secret: secret_of(node),
                registration: None,
                level: Level::FIRST,
                start: 0,
            },
            capacity,
            used: 0,
            next_stamp: 1,
            sealed: BTreeMap::new(),
            claimed: BTreeSet::new(),
            is_closed: false,
            is_retiring: false,
            is_returning: false,
            failed: None,
            scrub: ScrubProgress::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Flips the first bit of a chunk's bytes, like a bad disk. Returns false if it does not exist.
    pub fn damage(&self, chunk: ChunkId) -> bool {
        let mut state = self.lock();
        let Some(replica) = state.sealed.get_mut(&chunk).filter(|replica| !replica.data.is_empty())
        else {
            return false;
        };
        let mut data = BytesMut::from(&replica.data[..]);
        data[0] ^= 0x80;
        replica.data = data.freeze();
        true
    }

    /// Loses the bytes of a chunk, like a file that someone removed. Returns false if it does not
    /// exist.
    pub fn lose(&self, chunk: ChunkId) -> bool {
        let mut state = self.lock();
        state.sealed.get_mut(&chunk).map(|replica| replica.is_lost = true).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_stamp(&mut self) -> Stamp {
        let stamp = Stamp(self.next_stamp);
        self.next_stamp += 1;
        stamp
    }

    fn disk(&self) -> DiskId {
        DiskId(self.identity.node.0)
    }

    /// Returns the replica of a chunk; none once the disk has failed.
    fn held(&self, chunk: ChunkId) -> Option<&Replica> {
        self.sealed.get(&chunk).filter(|_| self.failed.is_none())
    }

    fn find(&self, replica: ReplicaRef) -> Result<&Replica, StoreError> {
        if self.is_closed {
            return Err(StoreError::Closed);
        }
        let found = self.held(replica.chunk);
        let found = found.filter(|found| self.describe(found).replica() == replica);
        found.ok_or(StoreError::NotFound(replica.chunk))
    }

    /// Finds a replica whose bytes are there; forgets one that lost them.
    fn find_bytes(&mut self, replica: ReplicaRef) -> Result<&Replica, StoreError> {
        if self.find(replica)?.is_lost {
            let lost = self.sealed.remove(&replica.chunk);
            self.used -= lost.map_or(0, |lost| lost.data.len() as u64);
        }
        self.find(replica)
    }

    fn describe(&self, replica: &Replica) -> SealedChunk {
        SealedChunk {
            chunk: replica.header.chunk,
            stamp: replica.stamp,
            disk: self.disk(),
            length: replica.seal.length,
            crc32c: replica.seal.crc32c,
            is_set_aside: replica.is_set_aside,
        }
    }
}

#[async_trait]
impl IdentityStore for MemoryStore {
    fn identity(&self) -> Identity {
        self.lock().identity
    }

    async fn store_registration(&self, registration: Registration) -> Result<(), StoreError> {
        let mut state = self.lock();
        if let Some(old) = state.identity.registration {
            if old.cluster != registration.cluster {
                return Err(StoreError::WrongCluster(old.cluster));
            }
            if old.number > registration.number {
                let (found, given) = (old.number, registration.number);
                return Err(StoreError::OldRegistration { found, given });
            }
        }
        state.identity.registration = Some(registration);
        let start = state.identity.start.max(registration.number.0);
        state.identity.start = start;
        state.next_stamp = state.next_stamp.max(start << COUNTER_BITS);
        Ok(())
    }

    async fn rejoin(&self, registration: Registration) -> Result<(), StoreError> {
        self.store_registration(registration).await?;
        self.lock().is_returning = true;
        Ok(())
    }

    async fn raise_level(&self, level: Level) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.identity.level = state.identity.level.max(level);
        Ok(())
    }

    async fn settle_disk(&self, disk: DiskId) -> Result<(), StoreError> {
        let mut state = self.lock();
        if disk != state.disk() {
            return Err(StoreError::NoDisk(disk));
        }
        state.is_returning = false;
        Ok(())
    }

    async fn forget_disks(&self, _disks: &[DiskId]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn reopen_disks(&self) -> bool {
        false
    }

    fn set_retiring(&self, disks: &[DiskId]) {
        let mut state = self.lock();
        state.is_retiring = disks.contains(&state.disk());
    }
}

#[async_trait]
impl ScrubStore for MemoryStore {
    async fn scrub_progress(&self, disk: DiskId) -> Result<ScrubProgress, StoreError> {
        let state = self.lock();
        if disk == state.disk() { Ok(state.scrub) } else { Err(StoreError::NoDisk(disk)) }
    }

    async fn store_scrub_progress(
        &self,
        disk: DiskId,
        progress: ScrubProgress,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        if disk != state.disk() {
            return Err(StoreError::NoDisk(disk));
        }
        state.scrub = progress;
        Ok(())
    }
}

#[async_trait]
impl ChunkStore for MemoryStore {
    async fn create(&self, header: ChunkHeader) -> Result<Box<dyn ChunkWriter>, StoreError> {
        let chunk = header.chunk;
        let mut state = self.lock();
        if state.is_closed {
            return Err(StoreError::Closed);
        }
        if let Some(why) = &state.failed {
            return Err(StoreError::NoSpace(format!("the memory store has failed: {why}")));
        }
        if state.is_returning {
            return Err(StoreError::NoSpace("the memory store is returning".to_owned()));
        }
        if state.used >= state.capacity {
            return Err(StoreError::NoSpace("the memory store is full".to_owned()));
        }
        if state.sealed.contains_key(&chunk) || !state.claimed.insert(chunk) {
            return Err(StoreError::Exists(chunk));
        }
        drop(state);
        let store = self.clone();
        Ok(Box::new(Writer { store, header, data: BytesMut::new(), crcs: Vec::new(), held: 0 }))
    }

    async fn replace(
        &self,
        header: ChunkHeader,
        replica: ReplicaRef,
    ) -> Result<Box<dyn ChunkWriter>, StoreError> {
        let mut state = self.lock();
        state.find(replica)?;
        if !state.claimed.insert(replica.chunk) {
            return Err(StoreError::Exists(replica.chunk));
        }
        drop(state);
        let store = self.clone();
        Ok(Box::new(Writer { store, header, data: BytesMut::new(), crcs: Vec::new(), held: 0 }))
    }

    async fn replicas(&self, chunk: ChunkId) -> Result<Vec<SealedChunk>, StoreError> {
        let state = self.lock();
        if state.is_closed {
            return Err(StoreError::Closed);
        }
        Ok(state.held(chunk).map(|found| state.describe(found)).into_iter().collect())
    }

    async fn stat(&self, replica: ReplicaRef) -> Result<Option<SealedChunk>, StoreError> {
        let state = self.lock();
        match state.find(replica) {
            Ok(replica) => Ok(Some(state.describe(replica))),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn header(&self, replica: ReplicaRef) -> Result<ChunkHeader, StoreError> {
        Ok(self.lock().find(replica)?.header.clone())
    }

    async fn read(
        &self,
        replica: ReplicaRef,
        offset: u64,
        length: u64,
    ) -> Result<Blocks, StoreError> {
        let mut state = self.lock();
        let replica = state.find_bytes(replica)?;
        let all = replica.data.len();
        let offset = (offset.min(all as u64)) as usize;
        let wanted = offset.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(all);
        let start = offset - offset % BLOCK_SIZE;
        let end = wanted.next_multiple_of(BLOCK_SIZE).min(start + READ_MAX).min(all);
        let end = if wanted == offset { start } else { end };
        let crcs = start / BLOCK_SIZE..end.div_ceil(BLOCK_SIZE);
        Ok(Blocks {
            offset: start as u64,
            data: replica.data.slice(start..end),
            crcs: replica.crcs[crcs].to_vec(),
            sha256: (start < end).then_some(replica.seal.sha256),
        })
    }

    async fn verify(
        &self,
        replica: ReplicaRef,
        pace: &dyn ReadPace,
    ) -> Result<Option<u64>, StoreError> {
        let length = self.lock().find(replica)?.seal.length;
        let (mut left, step) = (length, READ_MAX as u64);
        while left > 0 {
            pace.admit(left.min(step)).await;
            left = left.saturating_sub(step);
        }
        let mut state = self.lock();
        let replica = state.find_bytes(replica)?;
        let found = Crc32c::of_blocks(&replica.data);
        let bad = found.iter().zip(&replica.crcs).position(|(found, stored)| found != stored);
        Ok(bad.map(|block| block as u64))
    }

    async fn set_aside(&self, replica: ReplicaRef) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.find(replica)?;
        if let Some(found) = state.sealed.get_mut(&replica.chunk) {
            found.is_set_aside = true;
        }
        Ok(())
    }

    async fn reinstate(&self, replica: ReplicaRef) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.find(replica)?;
        if let Some(found) = state.sealed.get_mut(&replica.chunk) {
            found.is_set_aside = false;
        }
        Ok(())
    }

    async fn restamp(&self, replica: ReplicaRef) -> Result<SealedChunk, StoreError> {
        let mut state = self.lock();
        state.find(replica)?;
        if state.claimed.contains(&replica.chunk) {
            return Err(StoreError::Exists(replica.chunk));
        }
        let stamp = state.next_stamp();
        let found = state.sealed.get_mut(&replica.chunk);
        let found = found.ok_or(StoreError::NotFound(replica.chunk))?;
        found.stamp = stamp;
        let found = found.clone();
        Ok(state.describe(&found))
    }

    fn verdict_number(&self) -> u64 {
        self.lock().next_stamp().0
    }

    async fn probe(&self, _disk: DiskId) -> Result<(), StoreError> {
        Ok(())
    }

    fn fail_disk(&self, _disk: DiskId, why: &str) {
        self.lock().failed = Some(why.to_owned());
    }

    async fn list(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<SealedChunk>, StoreError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock();
        let limit = if state.failed.is_some() { 0 } else { limit };
        let found = state.sealed.range((start, Bound::Unbounded)).take(limit);
        Ok(found.map(|(_, replica)| state.describe(replica)).collect())
    }

    async fn delete(&self, replica: ReplicaRef) -> Result<bool, StoreError> {
        let mut state = self.lock();
        match state.find(replica) {
            Err(StoreError::NotFound(_)) => return Ok(false),
            found => found.map(drop)?,
        }
        if state.claimed.contains(&replica.chunk) {
            return Err(StoreError::Replacing(replica.chunk));
        }
        if let Some(replica) = state.sealed.remove(&replica.chunk) {
            state.used -= replica.data.len() as u64;
        }
        Ok(true)
    }

    fn damaged(&self) -> Vec<DamagedHead> {
        Vec::new()
    }

    fn usage(&self) -> Vec<DiskUsage> {
        let state = self.lock();
        vec![DiskUsage {
            disk: state.disk(),
            capacity: state.capacity,
            free: state.capacity - state.used,
            file_system: None,
            file_system_free: state.capacity - state.used,
            chunks: state.sealed.len() as u64,
            writers: state.claimed.len() as u64,
            state: match (&state.failed, state.is_returning, state.is_retiring) {
                (Some(_), ..) => DiskState::Failed,
                (None, true, _) => DiskState::Returning,
                (None, false, true) => DiskState::Retiring,
                (None, false, false) => DiskState::Healthy,
            },
            reason: state.failed.clone().unwrap_or_default(),
            has_unread_heads: false,
            read_percent: None,
            is_full: state.used >= state.capacity,
        }]
    }

    async fn close(&self, _within: Duration) {
        self.lock().is_closed = true;
    }
}

struct Writer {
    store: MemoryStore,
    header: ChunkHeader,
    data: BytesMut,
    crcs: Vec<Crc32c>,
    /// Bytes counted as used until the chunk is sealed or dropped.
    held: u64,
}

impl Writer {
    fn mismatch(&self, what: &str) -> StoreError {
        StoreError::Mismatch { chunk: self.header.chunk, what: what.to_owned() }
    }
}

#[async_trait]
impl ChunkWriter for Writer {
    fn length(&self) -> u64 {
        self.data.len() as u64
    }

    async fn append(&mut self, data: Bytes, crcs: Vec<Crc32c>) -> Result<(), StoreError> {
        let size = data.len() as u64;
        if data.is_empty() {
            return Ok(());
        }
        if self.length() + size > self.header.max_length {
            return Err(self.mismatch("more bytes than announced"));
        }
        if !self.data.len().is_multiple_of(BLOCK_SIZE) || block_count(size) != crcs.len() as u64 {
            return Err(self.mismatch("bytes that are not whole blocks with a checksum each"));
        }
        let mut state = self.store.lock();
        if state.used + size > state.capacity {
            return Err(StoreError::NoSpace("the memory store is full".to_owned()));
        }
        state.used += size;
        drop(state);
        self.held += size;
        self.data.extend_from_slice(&data);
        self.crcs.extend(crcs);
        Ok(())
    }

    async fn seal(mut self: Box<Self>, seal: ChunkSeal) -> Result<SealedChunk, StoreError> {
        if Crc32c::of_whole(&self.crcs, seal.length) != Some(seal.crc32c)
            || seal.length != self.length()
        {
            return Err(self.mismatch("length or checksum differs from the seal"));
        }
        let data = std::mem::take(&mut self.data).freeze();
        let store = self.store.clone();
        let mut state = store.lock();
        if state.is_closed {
            drop(state);
            return Err(StoreError::Closed);
        }
        self.held = 0;
        let stamp = state.next_stamp();
        let replica = Replica {
            header: self.header.clone(),
            seal,
            stamp,
            data,
            crcs: std::mem::take(&mut self.crcs),
            is_set_aside: false,
            is_lost: false,
        };
        let sealed = state.describe(&replica);
        if let Some(replaced) = state.sealed.insert(self.header.chunk, replica) {
            state.used -= replaced.data.len() as u64;
        }
        Ok(sealed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.store.lock();
        state.used -= self.held;
        state.claimed.remove(&self.header.chunk);
    }
}

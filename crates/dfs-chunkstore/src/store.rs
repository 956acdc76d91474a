//! The contract of a chunk store.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
pub use dfs_types::ChunkSeal;
use dfs_types::{
    BLOCK_SIZE, ChunkId, ClusterId, Crc32c, DiskId, DiskState, FileSystemId, InodeId, Part,
    ReplicaRef, Sha256, Stamp,
};

use crate::{ReadPace, StoreError};

/// Metadata in a chunk's own record, enough to rebuild the namespace from datanodes alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The cluster.
    pub cluster: ClusterId,
    /// The chunk.
    pub chunk: ChunkId,
    /// The inode it was written for.
    pub inode: InodeId,
    /// Path of that inode when it was written.
    pub path: Bytes,
    /// Offset in the file.
    pub file_offset: u64,
    /// Maximum length in bytes.
    pub max_length: u64,
}

/// A sealed replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedChunk {
    /// The chunk.
    pub chunk: ChunkId,
    /// Identity of the replica: no other replica of this chunk on this store ever has the same.
    pub stamp: Stamp,
    /// Disk of the replica.
    pub disk: DiskId,
    /// Length in bytes.
    pub length: u64,
    /// crc32c of the whole chunk.
    pub crc32c: Crc32c,
    /// True if set aside as bad: kept, listed, and read only for its good blocks.
    pub is_set_aside: bool,
}

impl SealedChunk {
    /// Returns the name under which others read, report and delete it. Stores hold whole chunks.
    pub fn replica(&self) -> ReplicaRef {
        let Self { chunk, stamp, disk, .. } = *self;
        ReplicaRef { chunk, part: Part::WHOLE, disk, stamp }
    }
}

/// Whole blocks of a chunk with the checksums they were written with. Not verified by the store:
/// the user of the bytes verifies them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Offset in the chunk; a multiple of the block size.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// Checksum of each block of `data`.
    pub crcs: Vec<Crc32c>,
    /// sha256 of the whole chunk, as it was sealed. `None` if there are no blocks, or if the head of
    /// a replica that is set aside is damaged.
    pub sha256: Option<Sha256>,
}

impl Blocks {
    /// Returns the blocks before the first one that does not match its checksum.
    #[must_use]
    pub fn before_first_bad(mut self) -> Self {
        let blocks = self.data.chunks(BLOCK_SIZE).zip(&self.crcs);
        let good = blocks.take_while(|(data, crc)| Crc32c::of(data) == **crc).count();
        self.data.truncate(good * BLOCK_SIZE);
        self.crcs.truncate(good);
        self
    }
}

/// State and usage of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// The disk.
    pub disk: DiskId,
    /// Bytes that the store may use on it.
    pub capacity: u64,
    /// Free bytes of that capacity. The space of a file system shared by several disks is counted
    /// once: each disk has its share.
    pub free: u64,
    /// File system of the disk; `None` if it cannot be determined.
    pub file_system: Option<FileSystemId>,
    /// Bytes that all disks on that file system together can still take.
    pub file_system_free: u64,
    /// Sealed chunks on it.
    pub chunks: u64,
    /// Replicas being written to it. Counted until they are counted as sealed, without a gap.
    pub writers: u64,
    /// State. Out of service, it has no free space and no known chunks.
    pub state: DiskState,
    /// Why it is not healthy or has unread heads, and what to do; otherwise empty.
    pub reason: String,
    /// True while it may hold replicas that are not found, as it did not return their heads.
    pub has_unread_heads: bool,
    /// Percentage of it that has been read, while it is starting.
    pub read_percent: Option<u8>,
    /// True above the high watermark: new chunks are refused.
    pub is_full: bool,
}

/// A replica whose head was damaged or unreadable when the store was opened. It is kept, but neither
/// listed nor served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedHead {
    /// The disk.
    pub disk: DiskId,
    /// The chunk, if the place of the head names it.
    pub chunk: Option<ChunkId>,
    /// The file.
    pub path: PathBuf,
    /// Offset of the head in a file of several replicas.
    pub offset: Option<u64>,
    /// True if the disk did not return the head, but may do so later: the replica is not absent.
    pub is_unread: bool,
}

/// A chunk being written. Dropping it unsealed leaves nothing behind.
#[async_trait]
pub trait ChunkWriter: Send {
    /// Returns the number of bytes appended so far.
    fn length(&self) -> u64;

    /// Appends whole blocks, which the caller has verified (a shorter one only at the very end).
    /// Returns when the bytes are accepted, not when they are durable. After an error the writer is
    /// unusable.
    async fn append(&mut self, data: Bytes, crcs: Vec<Crc32c>) -> Result<(), StoreError>;

    /// Makes the chunk visible. When this returns `Ok`, the chunk, its checksums and its directory
    /// entry are durable. When it returns an error, the chunk does not exist and never will; only a
    /// disk that failed in the process may show it after a restart, as an unreferenced replica. If
    /// the future is dropped, either may be the case.
    async fn seal(self: Box<Self>, seal: ChunkSeal) -> Result<SealedChunk, StoreError>;
}

/// Chunks on the disks of one datanode.
///
/// A correct implementation passes `dfs_chunkstore::conformance`. All calls may be made
/// concurrently from many tasks; none blocks a runtime thread.
#[async_trait]
pub trait ChunkStore: Send + Sync + 'static {
    /// Starts a chunk on the disk with the most room. Refuses a chunk that is being written or exists
    /// on a disk that is not retiring, and any chunk while no disk has room below the high watermark.
    async fn create(&self, header: ChunkHeader) -> Result<Box<dyn ChunkWriter>, StoreError>;

    /// Starts a replica that takes the place of this one, of the same chunk and on the same disk,
    /// when it is sealed: at any time, crashes included, one of the two is there. `NotFound` if
    /// there is none. Until then the old one can be read, but not deleted.
    async fn replace(
        &self,
        header: ChunkHeader,
        replica: ReplicaRef,
    ) -> Result<Box<dyn ChunkWriter>, StoreError>;

    /// Describes the sealed replicas of a chunk, set aside or not: one for each disk that has one,
    /// the newest first.
    async fn replicas(&self, chunk: ChunkId) -> Result<Vec<SealedChunk>, StoreError>;

    /// Describes a sealed replica, set aside or not.
    async fn stat(&self, replica: ReplicaRef) -> Result<Option<SealedChunk>, StoreError>;

    /// Reads the header of a sealed replica.
    async fn header(&self, replica: ReplicaRef) -> Result<ChunkHeader, StoreError>;

    /// Reads the blocks that contain `length` bytes from `offset`: at most 1 MiB, fewer at the end
    /// of the chunk, none past it. Callers that need more read again from there. The checksums
    /// combine to the seal of the replica, even if it is set aside.
    ///
    /// # Errors
    /// `Damaged` if the replica on the disk is not the one that was sealed, `Unreadable` if the
    /// disk failed to return it, which may pass. Both may concern only some of its blocks.
    async fn read(
        &self,
        replica: ReplicaRef,
        offset: u64,
        length: u64,
    ) -> Result<Blocks, StoreError>;

    /// Verifies every block of a replica, even one set aside. `Some(n)` is the first block that was
    /// bad in two reads, from the disk rather than from caches as far as possible. An unreadable
    /// block is an error, as it may become readable again. `NotFound` if the replica is not on the
    /// disk any more, which is then forgotten.
    async fn verify(
        &self,
        replica: ReplicaRef,
        pace: &dyn ReadPace,
    ) -> Result<Option<u64>, StoreError>;

    /// Sets a bad replica aside, durably unless its head is unreadable: then until the next start,
    /// which serves it only if it can be read again. It is kept until it is deleted or replaced.
    /// `NotFound` if there is none.
    async fn set_aside(&self, replica: ReplicaRef) -> Result<(), StoreError>;

    /// Reverts [`set_aside`](Self::set_aside), durably, for a replica that was verified since.
    async fn reinstate(&self, replica: ReplicaRef) -> Result<(), StoreError>;

    /// Gives a replica another stamp, so that orders which name the old one no longer apply to it.
    /// When this returns `Ok`, the replica, its name and its new stamp are durable, even if they were
    /// left by a process that was killed before it synced them. A crash leaves it under one of the
    /// two stamps. `NotFound` if there is none, `Exists` while it is being replaced, `Damaged` if the
    /// disk holds another one in its place.
    async fn restamp(&self, replica: ReplicaRef) -> Result<SealedChunk, StoreError>;

    /// Returns the next number of the counter of stamps: greater than all stamps and numbers that
    /// any disk in service has ever got. Orders verdicts on replicas.
    fn verdict_number(&self) -> u64;

    /// Lists about `limit` sealed replicas of chunks greater than `after` in chunk order, including
    /// those set aside; all replicas of a chunk together, so a few more than `limit`.
    async fn list(
        &self,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<SealedChunk>, StoreError>;

    /// Reads a small part of a disk that is always there, from the disk rather than from caches as
    /// far as possible. An error means that the disk returns nothing at all, so that what it does
    /// not return of a replica says nothing about that replica.
    async fn probe(&self, disk: DiskId) -> Result<(), StoreError>;

    /// Takes a disk out of service for this reason, which its state shows, until the next start.
    fn fail_disk(&self, disk: DiskId, why: &str);

    /// Deletes a replica, durably, and frees its space. Returns false if there is none. Works on a
    /// full disk.
    async fn delete(&self, replica: ReplicaRef) -> Result<bool, StoreError>;

    /// Returns the replicas whose heads were damaged or unreadable when the store was opened; at most
    /// 1,000 damaged ones of each disk.
    fn damaged(&self) -> Vec<DamagedHead>;

    /// Returns the state and usage of the disks.
    fn usage(&self) -> Vec<DiskUsage>;

    /// Ends background work. Acknowledged data is durable without it.
    async fn close(&self, within: Duration);
}

//! The chunk store on disks.

mod config;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{ChunkId, Random, Stamp};

use crate::{
    Blocks, ChunkHeader, ChunkStore, ChunkWriter, DiskUsage, Fs, Identity, IdentityStore,
    OpenError, Pool, Registration, SealedChunk, StoreError,
};

pub use config::{Config, DiskConfig};

/// The chunk store on the disks of one datanode.
pub struct DiskStore {}

impl DiskStore {
    /// Opens the store: takes the folders, reads or makes the identity, and finds exactly the
    /// sealed chunks. Disks that are all empty become a new node; an empty one among others
    /// becomes a replaced disk of the same node.
    pub async fn open(
        _config: Config,
        _fs: Arc<dyn Fs>,
        _pool: Pool,
        _random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        todo!()
    }
}

#[async_trait]
impl IdentityStore for DiskStore {
    fn identity(&self) -> Identity {
        todo!()
    }
    async fn store_registration(&self, _registration: Registration) -> Result<(), StoreError> {
        todo!()
    }
}

#[async_trait]
impl ChunkStore for DiskStore {
    async fn create(&self, _header: ChunkHeader) -> Result<Box<dyn ChunkWriter>, StoreError> {
        todo!()
    }
    async fn stat(&self, _chunk: ChunkId) -> Result<Option<SealedChunk>, StoreError> {
        todo!()
    }
    async fn header(&self, _chunk: ChunkId) -> Result<ChunkHeader, StoreError> {
        todo!()
    }
    async fn read(&self, _c: ChunkId, _offset: u64, _length: u64) -> Result<Blocks, StoreError> {
        todo!()
    }
    async fn verify(&self, _chunk: ChunkId) -> Result<Option<u64>, StoreError> {
        todo!()
    }
    async fn set_aside(&self, _chunk: ChunkId, _stamp: Stamp) -> Result<(), StoreError> {
        todo!()
    }
    async fn list(
        &self,
        _after: Option<ChunkId>,
        _limit: usize,
    ) -> Result<Vec<SealedChunk>, StoreError> {
        todo!()
    }
    async fn delete(&self, _chunk: ChunkId, _stamp: Stamp) -> Result<bool, StoreError> {
        todo!()
    }
    fn usage(&self) -> Vec<DiskUsage> {
        todo!()
    }
    async fn close(&self, _within: Duration) {
        todo!()
    }
}

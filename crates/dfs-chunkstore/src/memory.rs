//! A chunk store in memory, for tests.

use std::time::Duration;

use async_trait::async_trait;
use dfs_types::{ChunkId, NodeId, Stamp};

use crate::{
    Blocks, ChunkHeader, ChunkStore, ChunkWriter, DiskUsage, Identity, IdentityStore, Registration,
    SealedChunk, StoreError,
};

/// A chunk store in memory: nothing outlives it.
#[derive(Debug)]
pub struct MemoryStore {}

impl MemoryStore {
    /// Makes an empty store of `capacity` bytes for a node.
    pub fn new(_node: NodeId, _capacity: u64) -> Self {
        todo!()
    }
}

#[async_trait]
impl IdentityStore for MemoryStore {
    fn identity(&self) -> Identity {
        todo!()
    }
    async fn store_registration(&self, _registration: Registration) -> Result<(), StoreError> {
        todo!()
    }
}

#[async_trait]
impl ChunkStore for MemoryStore {
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

//! The chunk store of a datanode.

mod error;
mod store;

pub use error::StoreError;
pub use store::{
    Blocks, ChunkHeader, ChunkSeal, ChunkStore, ChunkWriter, DiskUsage, SealedChunk,
};

//! Reading: where the bytes of a file lie.

use dfs_types::ChunkId;

use super::{Chunk, FileStat, Namespace, Target};
use crate::Error;

/// Asks where bytes of a file lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// The file.
    pub target: Target,
    /// First byte of interest.
    pub offset: u64,
    /// Bytes of interest; to the end when 0.
    pub length: u64,
    /// Extents in one answer; 0, or above [`Namespace::EXTENTS_MAX`], for that many.
    pub max_extents: usize,
}

/// Where bytes of a file lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// The file.
    pub stat: FileStat,
    /// Those that touch the range, in file order.
    pub extents: Vec<ReadExtent>,
    /// Where the next page starts; `None` when this was the last.
    pub next_offset: Option<u64>,
}

/// A piece of a file in a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadExtent {
    /// Where in the file it starts.
    pub file_offset: u64,
    /// Its bytes.
    pub length: u64,
    /// The chunk.
    pub chunk_id: ChunkId,
    /// Where in the chunk it starts.
    pub chunk_offset: u64,
    /// What is known of the chunk.
    pub chunk: Chunk,
}

impl Namespace {
    /// Extents that one answer has at most.
    pub const EXTENTS_MAX: usize = 256;

    /// Says where the bytes of a file lie. A file that was opened before is readable by its
    /// number until it is taken apart; then [`Error::Stale`].
    pub async fn open_file(&self, request: &OpenFile) -> Result<ReadPlan, Error> {
        let _ = request;
        todo!()
    }
}

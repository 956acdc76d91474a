//! What can go wrong in a chunk store.

use dfs_types::{ChunkId, ErrorCode};

/// Why a chunk store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no sealed copy of the chunk.
    #[error("chunk {0} is not here")]
    NotFound(ChunkId),
    /// The chunk is here already, or is being written.
    #[error("chunk {0} is here already")]
    Exists(ChunkId),
    /// The copy was found bad and is no longer served.
    #[error("the copy of chunk {0} here was found bad and set aside")]
    SetAside(ChunkId),
    /// No disk has room.
    #[error("no disk has room for the chunk: {0}")]
    NoSpace(String),
    /// What was appended does not fit what the chunk was said to be.
    #[error("chunk {chunk} does not fit its description: {what}")]
    Mismatch {
        /// The chunk.
        chunk: ChunkId,
        /// What differs.
        what: String,
    },
    /// Bytes on disk do not have the checksum they were written with.
    #[error("chunk {chunk} is damaged on disk: {what}")]
    Damaged {
        /// The chunk.
        chunk: ChunkId,
        /// Where and how.
        what: String,
    },
    /// A disk failed.
    #[error("{action} failed on disk {disk}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Folder of the disk.
        disk: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The store is closed.
    #[error("the chunk store is closed")]
    Closed,
}

impl StoreError {
    /// The code callers get.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::Exists(_) => ErrorCode::AlreadyExists,
            Self::SetAside(_) | Self::Damaged { .. } => ErrorCode::Corrupt,
            Self::NoSpace(_) => ErrorCode::NoSpace,
            Self::Mismatch { .. } => ErrorCode::ChecksumMismatch,
            Self::Io { .. } => ErrorCode::Internal,
            Self::Closed => ErrorCode::Unavailable,
        }
    }
}

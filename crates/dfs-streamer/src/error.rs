//! What can go wrong with a chunk under way.

use dfs_types::{ErrorCode, FrameError};

/// Why a chunk did not get through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The link broke. The session may live on: attach again.
    #[error("the stream broke: {0}")]
    Cut(String),
    /// The receiver refused.
    #[error("{message}")]
    Refused {
        /// Its code.
        code: ErrorCode,
        /// Its words.
        message: String,
    },
    /// A frame is not what it should be.
    #[error("a frame is not sound")]
    Frame(#[from] FrameError),
    /// A frame does not follow on what was received before.
    #[error("a frame starts at {found}, {expected} was expected")]
    OutOfOrder {
        /// End of what was received.
        expected: u64,
        /// Where the frame starts.
        found: u64,
    },
    /// More bytes came than the chunk may hold.
    #[error("the chunk ends at {max}, a frame goes on to {end}")]
    PastEnd {
        /// Bytes the chunk may hold.
        max: u64,
        /// End of the frame.
        end: u64,
    },
    /// The last frame names a checksum that the bytes received do not have.
    #[error("the whole chunk does not have the checksum of its last frame")]
    WholeMismatch,
    /// Nothing moved for too long.
    #[error("no progress for {0} ms")]
    Stalled(u64),
    /// The bytes to be sent could not be had.
    #[error("the source of the chunk failed: {0}")]
    Source(String),
    /// The session was taken over by a later stream.
    #[error("a later stream has taken over the session")]
    Superseded,
    /// The session is not known, or was idle for too long. The chunk must go again, under a new id.
    #[error("the session is not known here; it may have expired")]
    UnknownSession,
    /// Fewer replicas are left than were demanded.
    #[error("{left} replicas are left of at least {wanted}: {why}")]
    TooFewReplicas {
        /// How many are left.
        left: usize,
        /// How many were demanded.
        wanted: usize,
        /// What became of the others.
        why: String,
    },
}

impl Error {
    /// The code that callers get.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Cut(_) | Self::Stalled(_) => ErrorCode::Unavailable,
            Self::Refused { code, .. } => *code,
            Self::Frame(error) => error.code(),
            Self::OutOfOrder { .. } | Self::PastEnd { .. } => ErrorCode::InvalidArgument,
            Self::WholeMismatch => ErrorCode::ChecksumMismatch,
            Self::Source(_) => ErrorCode::Internal,
            Self::Superseded | Self::UnknownSession => ErrorCode::Stale,
            Self::TooFewReplicas { .. } => ErrorCode::NotEnoughNodes,
        }
    }

    /// Whether attaching to the same session again may help: the bytes may have been damaged or
    /// lost on the way.
    pub(crate) fn may_resume(&self) -> bool {
        match self {
            Self::Cut(_) => true,
            Self::Refused { code, .. } => {
                matches!(code, ErrorCode::ChecksumMismatch | ErrorCode::Busy)
            }
            _ => false,
        }
    }
}

//! Errors of a chunk transfer.

use dfs_types::{ErrorCode, FrameError};

/// Why a chunk was not transferred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The link broke. The session may still exist: attach again.
    #[error("the stream broke: {0}")]
    Cut(String),
    /// The receiver refused.
    #[error("{message}")]
    Refused {
        /// Its code.
        code: ErrorCode,
        /// Its message.
        message: String,
    },
    /// A frame is malformed.
    #[error("a frame is malformed")]
    Frame(#[from] FrameError),
    /// A frame does not continue what was received before.
    #[error("a frame starts at {found}, but {expected} was expected")]
    OutOfOrder {
        /// End of the bytes received.
        expected: u64,
        /// Start of the frame.
        found: u64,
    },
    /// More bytes arrived than the chunk may hold.
    #[error("the chunk ends at {max}, but a frame extends to {end}")]
    PastEnd {
        /// Maximum length of the chunk.
        max: u64,
        /// End of the frame.
        end: u64,
    },
    /// The checksum in the last frame does not match the bytes received.
    #[error("the whole chunk does not have the checksum of its last frame")]
    WholeMismatch,
    /// No progress for too long.
    #[error("no progress for {0} ms")]
    Stalled(u64),
    /// Reading the bytes to send failed.
    #[error("the source of the chunk failed: {0}")]
    Source(String),
    /// The session was taken over by a later stream.
    #[error("a later stream has taken over the session")]
    Superseded,
    /// The session is unknown, or was idle for too long. Send the chunk again under a new id.
    #[error("the session is not known here; it may have expired")]
    UnknownSession,
    /// Fewer replicas are left than required.
    #[error("only {left} of the {wanted} required replicas are left: {why}")]
    TooFewReplicas {
        /// Number left.
        left: usize,
        /// Number required.
        wanted: usize,
        /// Errors of the others.
        why: String,
    },
}

impl Error {
    /// Returns the code for callers.
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

    /// Returns true if attaching to the same session again may help: the bytes may have been
    /// damaged or lost in transit.
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

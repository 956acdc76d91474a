//! What can go wrong in a chunk store.

use std::io;
use std::path::PathBuf;

use dfs_types::{ChunkId, ClusterId, ErrorCode, Level, RegistrationNumber};

use crate::JobPanicked;

/// Why a chunk store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no sealed replica of the chunk.
    #[error("chunk {0} is not here")]
    NotFound(ChunkId),
    /// The chunk is here already, or is being written.
    #[error("chunk {0} is here already")]
    Exists(ChunkId),
    /// The replica was found bad and is no longer served.
    #[error("the replica of chunk {0} here was found bad and set aside")]
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
    /// The job broke off. The chunk it wrote is not there.
    #[error(transparent)]
    Broken(#[from] JobPanicked),
    /// A registration with another cluster.
    #[error("the disks belong to cluster {0}: empty them to join another one")]
    WrongCluster(ClusterId),
    /// A registration from before the one that the disks have.
    #[error("the disks have registration {found} already, {given} is older")]
    OldRegistration {
        /// The newest one on any disk.
        found: RegistrationNumber,
        /// The older one.
        given: RegistrationNumber,
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
            Self::Io { .. } | Self::Broken(_) => ErrorCode::Internal,
            Self::WrongCluster(_) => ErrorCode::WrongCluster,
            Self::OldRegistration { .. } => ErrorCode::Conflict,
            Self::Closed => ErrorCode::Unavailable,
        }
    }
}

/// Why a chunk store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No folder was given.
    #[error("no folder is configured: name at least one under disks")]
    NoDisks,
    /// A folder is used by another process.
    #[error("folder {} is in use by another process: stop it, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// A folder holds something else.
    #[error("folder {} is not empty and has no dfs identity: choose an empty folder", .0.display())]
    NotEmpty(PathBuf),
    /// The identity on a disk cannot be read.
    #[error(
        "the identity in {} is damaged ({what}): restore the file, or empty the folder and let \
         the cluster replica its chunks again",
        path.display()
    )]
    DamagedIdentity {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A build from before the first release wrote the disk.
    #[error(
        "folder {} was written by a build from before the first release, whose formats are no \
         longer read: empty it, and the node joins as a new one",
        .0.display()
    )]
    OldDisk(PathBuf),
    /// The disk may hold what only a newer release reads.
    #[error(
        "folder {} has write level {found}, this release reads levels up to {newest}: the upgrade \
         of the cluster was finalized; start the release that it runs",
        folder.display()
    )]
    NewerLevel {
        /// The folder.
        folder: PathBuf,
        /// Its level.
        found: Level,
        /// The newest level that is read here.
        newest: Level,
    },
    /// Disks of two nodes, or of two clusters, were put together.
    #[error(
        "folders {} and {} belong to different {what}: give each node its own disks",
        first.display(),
        second.display()
    )]
    MixedDisks {
        /// A folder.
        first: PathBuf,
        /// One that does not belong with it.
        second: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// The operating system refused.
    #[error("{action} {} failed", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The scan of the disks panicked.
    #[error("the scan of the disks broke off")]
    Scan(#[from] JobPanicked),
}

impl OpenError {
    /// The code of a process that cannot start because of it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoDisks | Self::MixedDisks { .. } => ErrorCode::InvalidArgument,
            Self::InUse(_) => ErrorCode::Busy,
            Self::NotEmpty(_) => ErrorCode::NotEmpty,
            Self::DamagedIdentity { .. } => ErrorCode::Corrupt,
            Self::OldDisk(_) | Self::NewerLevel { .. } => ErrorCode::UnsupportedVersion,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
                io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
                io::ErrorKind::ReadOnlyFilesystem => ErrorCode::ReadOnly,
                io::ErrorKind::NotFound => ErrorCode::NotFound,
                io::ErrorKind::NotADirectory => ErrorCode::NotADirectory,
                _ => ErrorCode::Internal,
            },
            Self::Scan(_) => ErrorCode::Internal,
        }
    }
}

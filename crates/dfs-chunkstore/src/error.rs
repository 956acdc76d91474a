//! Errors of a chunk store.

use std::io;
use std::path::PathBuf;

use dfs_types::{ChunkId, ClusterId, DiskId, ErrorCode, Level, RegistrationNumber};

use crate::JobPanicked;

/// Why an operation of a chunk store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no sealed replica of the chunk.
    #[error("chunk {0} is not stored here")]
    NotFound(ChunkId),
    /// The chunk already exists, or is being written.
    #[error("chunk {0} is already stored here")]
    Exists(ChunkId),
    /// The replica is being replaced or deleted, and cannot be deleted meanwhile.
    #[error("the replica of chunk {0} is being replaced or deleted")]
    Replacing(ChunkId),
    /// No disk has room.
    #[error("no disk has room for the chunk: {0}")]
    NoSpace(String),
    /// The appended bytes contradict the announced chunk.
    #[error("chunk {chunk} does not fit its description: {what}")]
    Mismatch {
        /// The chunk.
        chunk: ChunkId,
        /// The difference.
        what: String,
    },
    /// Bytes on disk do not match their checksum.
    #[error("chunk {chunk} is damaged on disk: {what}")]
    Damaged {
        /// The chunk.
        chunk: ChunkId,
        /// Location and kind of the damage.
        what: String,
    },
    /// A disk did not return the bytes of a replica. No damage: it may return them later.
    #[error("chunk {chunk} is unreadable: {what}")]
    Unreadable {
        /// The chunk.
        chunk: ChunkId,
        /// Location and error of the operating system.
        what: String,
    },
    /// A disk failed.
    #[error("{action} failed on disk {disk}")]
    Io {
        /// The operation.
        action: &'static str,
        /// Directory of the disk.
        disk: String,
        /// Error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// An operation of the disk does not return.
    #[error("disk {disk} hangs: an operation on it does not return")]
    Hung {
        /// Directory of the disk.
        disk: String,
    },
    /// All disks failed, so that nothing can be recorded.
    #[error("no disk of this node is in service: check the disks, then restart the datanode")]
    NoneInService,
    /// The store has no such disk.
    #[error("this node has no disk {0}")]
    NoDisk(DiskId),
    /// The job panicked. The chunk it was writing does not exist.
    #[error(transparent)]
    Broken(#[from] JobPanicked),
    /// A registration with another cluster.
    #[error(
        "the disks belong to cluster {0}, and the coordinator is of another one: connect to a \
         coordinator of their cluster, or bring its metadata back if that was lost; the disks stay \
         as they are"
    )]
    WrongCluster(ClusterId),
    /// A registration older than the one on the disks.
    #[error("the disks already have registration {found}, and {given} is older")]
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
    /// Returns the code for callers.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound(_) | Self::NoDisk(_) => ErrorCode::NotFound,
            Self::Exists(_) => ErrorCode::AlreadyExists,
            Self::Replacing(_) => ErrorCode::Busy,
            Self::Damaged { .. } => ErrorCode::Corrupt,
            Self::NoSpace(_) => ErrorCode::NoSpace,
            Self::Mismatch { .. } => ErrorCode::ChecksumMismatch,
            Self::Io { .. } | Self::Broken(_) => ErrorCode::Internal,
            Self::WrongCluster(_) => ErrorCode::WrongCluster,
            Self::OldRegistration { .. } => ErrorCode::Conflict,
            Self::Unreadable { .. } | Self::Hung { .. } | Self::NoneInService | Self::Closed => {
                ErrorCode::Unavailable
            }
        }
    }
}

/// Why a chunk store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No directory was given.
    #[error("no data directory is configured: list at least one under disks")]
    NoDisks,
    /// A directory is used by another process.
    #[error("directory {} is in use by another process: stop that process, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// A directory holds something else.
    #[error("directory {} is not empty and has no dfs identity: choose an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// An operation in a directory does not return.
    #[error("an operation in directory {} does not return: check the disk", .0.display())]
    Hung(PathBuf),
    /// No disk can take the identity of this start.
    #[error("no disk can record that the node starts")]
    NoIdentity(#[source] StoreError),
    /// The identity on a disk cannot be read.
    #[error(
        "the identity in {} is damaged ({what}): restore the file, or empty the directory and let \
         the cluster re-replicate its chunks",
        path.display()
    )]
    DamagedIdentity {
        /// The identity file.
        path: PathBuf,
        /// The damage.
        what: String,
    },
    /// A build from before the first release wrote the disk.
    #[error(
        "directory {} was written by a build from before the first release, whose formats are no \
         longer read: empty it, and the node joins as a new one",
        .0.display()
    )]
    OldDisk(PathBuf),
    /// The disk may contain data that only a newer release can read.
    #[error(
        "directory {} has write level {found}, but this release reads levels up to {newest}, \
         because the upgrade of the cluster was finalized; start the release that the cluster runs",
        folder.display()
    )]
    NewerLevel {
        /// The directory.
        folder: PathBuf,
        /// Its level.
        found: Level,
        /// The newest level that this release reads.
        newest: Level,
    },
    /// Disks of two nodes, or of two clusters, are mixed.
    #[error(
        "directories {} and {} belong to different {what}: give each node its own disks",
        first.display(),
        second.display()
    )]
    MixedDisks {
        /// A directory.
        first: PathBuf,
        /// A directory that does not match it.
        second: PathBuf,
        /// The difference.
        what: &'static str,
    },
    /// The operating system returned an error.
    #[error("{action} {} failed", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// Its path.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A job on the disk panicked.
    #[error(transparent)]
    Broken(#[from] JobPanicked),
}

impl OpenError {
    /// Returns the code of a process that cannot start because of it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoDisks | Self::MixedDisks { .. } => ErrorCode::InvalidArgument,
            Self::InUse(_) => ErrorCode::Busy,
            Self::Hung(_) => ErrorCode::Unavailable,
            Self::NotEmpty(_) => ErrorCode::NotEmpty,
            Self::NoIdentity(error) => match error {
                StoreError::Io { source, .. } => code_of(source.kind()),
                error => error.code(),
            },
            Self::DamagedIdentity { .. } => ErrorCode::Corrupt,
            Self::OldDisk(_) | Self::NewerLevel { .. } => ErrorCode::UnsupportedVersion,
            Self::Io { source, .. } => code_of(source.kind()),
            Self::Broken(_) => ErrorCode::Internal,
        }
    }
}

fn code_of(kind: io::ErrorKind) -> ErrorCode {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
        io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem => ErrorCode::ReadOnly,
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::NotADirectory => ErrorCode::NotADirectory,
        _ => ErrorCode::Internal,
    }
}

//! Errors of a datanode, and their mapping to what callers get.

use std::io;
use std::time::Duration;

use dfs_chunkstore::{OpenError, StoreError};
use dfs_proto::{Detail, Failure, FieldError, Unsealed};
use dfs_transport::listen_code;
use dfs_types::{ChunkId, ClusterId, DiskId, ErrorCode, LeaseEpoch, NodeId, NodeState};
use tonic::Status;

/// Retry hint for callers that reached a limit.
const BUSY_RETRY: Duration = Duration::from_millis(200);
/// Retry hint while the node is not part of the cluster yet.
const NOT_READY_RETRY: Duration = Duration::from_secs(1);

/// Why a datanode could not start, or could not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is invalid.
    #[error("setting {setting} {what}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// The problem, and what is valid.
        what: &'static str,
    },
    /// The disks could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A port could not be opened.
    #[error("cannot listen on {address}: choose another port, or stop what uses this one")]
    Listen {
        /// `host:port`.
        address: String,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The reflection service could not be built from the contract.
    #[error("the compiled contract cannot be read")]
    Contract(#[source] tonic_reflection::server::Error),
    /// A field of a request is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The request is for another cluster.
    #[error("this node belongs to cluster {ours}, but the request is for {theirs}")]
    WrongCluster {
        /// Cluster of the node.
        ours: ClusterId,
        /// Cluster of the request.
        theirs: ClusterId,
    },
    /// The request is for another node.
    #[error("this is node {ours}, but the request is for {theirs}: its address was reassigned")]
    OtherNode {
        /// Id of this node.
        ours: NodeId,
        /// Id in the request.
        theirs: NodeId,
    },
    /// The node is not part of a cluster yet.
    #[error("this node has not registered with a coordinator yet")]
    NotRegistered,
    /// The node accepts no chunks in this state.
    #[error("this node is {0} and accepts no new chunks")]
    TakesNoChunks(NodeState),
    /// The node is shutting down.
    #[error("this node is stopping")]
    Stopping,
    /// A limit is reached.
    #[error("this node has reached its limit of concurrent {0}")]
    Busy(&'static str),
    /// A caller read its stream too slowly.
    #[error(
        "the stream was read slower than {least} bytes per second and was ended: resume after the \
         last byte"
    )]
    SlowReader {
        /// Minimum rate in bytes per second.
        least: u64,
    },
    /// Fewer replicas are possible than required.
    #[error("only {replicas} of the {wanted} required replicas are possible: {why}")]
    NotEnoughReplicas {
        /// Number of possible replicas.
        replicas: u32,
        /// Number of required replicas.
        wanted: u32,
        /// Errors of the others.
        why: String,
    },
    /// An order is not from a coordinator of the cluster, or not for this node.
    #[error(transparent)]
    Unsealed(#[from] Unsealed),
    /// The order is too old.
    #[error("the order was given more than a minute ago, or its clock has been set back since")]
    OldOrder,
    /// An order comes from a coordinator that has not replied to a heartbeat of this node.
    #[error("the coordinator that gave the order has not replied to any heartbeat of this node")]
    UnknownCoordinator,
    /// An order comes from a worker that has been replaced.
    #[error("the order has lease epoch {order}, but this node has seen {seen}")]
    OldEpoch {
        /// Epoch of the order.
        order: LeaseEpoch,
        /// Highest epoch seen.
        seen: LeaseEpoch,
    },
    /// A range extends past the end of the chunk.
    #[error("offset {offset} is past the end of chunk {chunk}, which has {length} bytes")]
    PastEnd {
        /// The chunk.
        chunk: ChunkId,
        /// Requested offset.
        offset: u64,
        /// Length of the chunk.
        length: u64,
    },
    /// The disk of a replica is out of service, so whether the replica exists is unknown.
    #[error(
        "disk {disk}, which should hold chunk {chunk}, is not in service on this node: bring it \
         back, or remove the node from the cluster"
    )]
    DiskOutOfService {
        /// The chunk.
        chunk: ChunkId,
        /// The disk.
        disk: DiskId,
    },
    /// A block of a replica is bad, so that it is not served.
    #[error("block {block} of chunk {chunk} is damaged on this node; other blocks may be intact")]
    BadBlock {
        /// The chunk.
        chunk: ChunkId,
        /// Number of the block.
        block: u64,
    },
    /// The disk of a replica did not return a block.
    #[error("block {block} of chunk {chunk} is unreadable on this node for now")]
    UnreadableBlock {
        /// The chunk.
        chunk: ChunkId,
        /// Number of the block.
        block: u64,
    },
    /// A task of the request panicked.
    #[error("the request was interrupted")]
    BrokeOff,
    /// The chunk store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// Returns the code for callers, or for the failed start of the node.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Setting { .. } | Self::PastEnd { .. } => ErrorCode::InvalidArgument,
            Self::Open(error) => error.code(),
            Self::Listen { source, .. } => listen_code(source),
            Self::Contract(_) | Self::BrokeOff => ErrorCode::Internal,
            Self::Field(error) => error.code(),
            Self::WrongCluster { .. } => ErrorCode::WrongCluster,
            Self::NotRegistered
            | Self::TakesNoChunks(_)
            | Self::Stopping
            | Self::SlowReader { .. }
            | Self::UnknownCoordinator
            | Self::DiskOutOfService { .. }
            | Self::UnreadableBlock { .. }
            | Self::OtherNode { .. } => ErrorCode::Unavailable,
            Self::BadBlock { .. } => ErrorCode::Corrupt,
            Self::Unsealed(_) => ErrorCode::Unauthenticated,
            Self::Busy(_) => ErrorCode::Busy,
            Self::NotEnoughReplicas { .. } => ErrorCode::NotEnoughNodes,
            Self::OldOrder | Self::OldEpoch { .. } => ErrorCode::Stale,
            Self::Store(error) => error.code(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let retry_after = match &error {
            Error::NotRegistered => Some(NOT_READY_RETRY),
            Error::Busy(_) => Some(BUSY_RETRY),
            _ => None,
        };
        let detail = match error {
            Error::BadBlock { block, .. } | Error::UnreadableBlock { block, .. } => {
                Some(Detail::BadBlock(block))
            }
            _ => None,
        };
        Self { code: error.code(), message: with_sources(&error), retry_after, detail }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

/// Returns the message with those of its causes.
fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use dfs_types::Level;

    use super::*;

    #[test]
    fn every_start_error_has_its_code() {
        let folder = || PathBuf::from("/disk");
        let io = |kind: io::ErrorKind| {
            Error::Open(OpenError::Io { action: "opening", path: folder(), source: kind.into() })
        };
        let listen = |kind: io::ErrorKind| Error::Listen {
            address: "a:1".to_owned(),
            source: io::Error::from(kind),
        };
        let mixed = OpenError::MixedDisks { first: folder(), second: folder(), what: "nodes" };
        let damaged = OpenError::DamagedIdentity { path: folder(), what: "cut".to_owned() };
        let newer = OpenError::NewerLevel { folder: folder(), found: Level(9), newest: Level(1) };
        let table = [
            (Error::Setting { setting: "disks", what: "is empty" }, ErrorCode::InvalidArgument),
            (Error::Open(OpenError::NoDisks), ErrorCode::InvalidArgument),
            (Error::Open(OpenError::InUse(folder())), ErrorCode::Busy),
            (Error::Open(OpenError::NotEmpty(folder())), ErrorCode::NotEmpty),
            (Error::Open(damaged), ErrorCode::Corrupt),
            (Error::Open(newer), ErrorCode::UnsupportedVersion),
            (Error::Open(mixed), ErrorCode::InvalidArgument),
            (io(io::ErrorKind::StorageFull), ErrorCode::NoSpace),
            (io(io::ErrorKind::PermissionDenied), ErrorCode::PermissionDenied),
            (io(io::ErrorKind::ReadOnlyFilesystem), ErrorCode::ReadOnly),
            (io(io::ErrorKind::NotADirectory), ErrorCode::NotADirectory),
            (io(io::ErrorKind::Other), ErrorCode::Internal),
            (listen(io::ErrorKind::AddrInUse), ErrorCode::Busy),
            (listen(io::ErrorKind::AddrNotAvailable), ErrorCode::InvalidArgument),
        ];
        for (error, code) in table {
            assert_eq!(error.code(), code, "{error:?}");
        }
    }
}

//! What can go wrong in a datanode, and the one place where it becomes what callers are told.

use std::io;
use std::time::Duration;

use dfs_chunkstore::{OpenError, StoreError};
use dfs_proto::{Failure, FieldError, Unsealed};
use dfs_transport::listen_code;
use dfs_types::{ChunkId, ClusterId, DiskId, ErrorCode, LeaseEpoch, NodeId, NodeState};
use tonic::Status;

/// When a caller who met a bound may try again.
const BUSY_RETRY: Duration = Duration::from_millis(200);
/// When a caller may try again whom a node refused that is not part of the cluster yet.
const NOT_READY_RETRY: Duration = Duration::from_secs(1);

/// Why a datanode could not start, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting makes no sense.
    #[error("setting {setting} {what}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong, and what would be right.
        what: &'static str,
    },
    /// The disks could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A port could not be taken.
    #[error("cannot listen on {address}: choose another port, or stop what uses this one")]
    Listen {
        /// `host:port`.
        address: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The server broke off.
    #[error("the server broke off")]
    Serve(#[source] io::Error),
    /// The reflection service could not be made of the contract.
    #[error("the compiled contract cannot be read")]
    Contract(#[source] tonic_reflection::server::Error),
    /// A field of a request is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The request is for another cluster.
    #[error("this node belongs to cluster {ours}, the request is for {theirs}")]
    WrongCluster {
        /// The node's.
        ours: ClusterId,
        /// The request's.
        theirs: ClusterId,
    },
    /// The request is for another node.
    #[error("this is node {ours}, the request is for {theirs}: its address has changed hands")]
    OtherNode {
        /// This node.
        ours: NodeId,
        /// The request's.
        theirs: NodeId,
    },
    /// The node is not part of a cluster yet.
    #[error("this node has not registered with a coordinator yet")]
    NotRegistered,
    /// The node takes no chunks in this state.
    #[error("this node is {0} and takes no new chunks")]
    TakesNoChunks(NodeState),
    /// The node is about to end.
    #[error("this node is stopping")]
    Stopping,
    /// A bound is reached.
    #[error("this node has as many {0} as it may have at a time")]
    Busy(&'static str),
    /// A caller took its stream too slowly.
    #[error(
        "the stream was taken slower than {least} bytes a second and was ended: go on from its \
         last byte"
    )]
    SlowReader {
        /// The least rate, in bytes a second.
        least: u64,
    },
    /// Fewer replicas can be had than demanded.
    #[error("{replicas} replicas can be had where {wanted} are demanded: {why}")]
    NotEnoughReplicas {
        /// Replicas that could be made.
        replicas: u32,
        /// Replicas demanded.
        wanted: u32,
        /// What became of the others.
        why: String,
    },
    /// An order is not from a coordinator of the cluster, or not for this node.
    #[error(transparent)]
    Unsealed(#[from] Unsealed),
    /// An order was given too long ago.
    #[error("the order was given more than a minute ago, or by a clock that was set back since")]
    OldOrder,
    /// An order comes from a coordinator that this node does not hear.
    #[error("this node has had no heartbeat answered by the coordinator that gives the order")]
    UnknownCoordinator,
    /// An order comes from a worker that another has replaced.
    #[error("the order is of lease epoch {order}, this node has seen {seen}")]
    OldEpoch {
        /// Of the order.
        order: LeaseEpoch,
        /// The highest seen.
        seen: LeaseEpoch,
    },
    /// A range does not lie in the chunk.
    #[error("offset {offset} is past the end of chunk {chunk}, which has {length} bytes")]
    PastEnd {
        /// The chunk.
        chunk: ChunkId,
        /// What was asked for.
        offset: u64,
        /// Its bytes.
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
    /// The chunk store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// The code it is told by: to callers, or to who wanted to start the node.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Setting { .. } | Self::PastEnd { .. } => ErrorCode::InvalidArgument,
            Self::Open(error) => error.code(),
            Self::Listen { source, .. } => listen_code(source),
            Self::Serve(_) | Self::Contract(_) => ErrorCode::Internal,
            Self::Field(error) => error.code(),
            Self::WrongCluster { .. } => ErrorCode::WrongCluster,
            Self::NotRegistered
            | Self::TakesNoChunks(_)
            | Self::Stopping
            | Self::SlowReader { .. }
            | Self::UnknownCoordinator
            | Self::DiskOutOfService { .. }
            | Self::OtherNode { .. } => ErrorCode::Unavailable,
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
        Self { code: error.code(), message: with_sources(&error), retry_after, detail: None }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

/// The message with those of its causes.
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
            (Error::Serve(io::ErrorKind::BrokenPipe.into()), ErrorCode::Internal),
        ];
        for (error, code) in table {
            assert_eq!(error.code(), code, "{error:?}");
        }
    }
}

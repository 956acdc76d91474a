//! What can go wrong in a datanode, and the one place where it becomes what callers are told.

use std::io;
use std::time::Duration;

use dfs_chunkstore::{OpenError, StoreError};
use dfs_proto::{Failure, FieldError};
use dfs_types::{ChunkId, ClusterId, ErrorCode, LeaseEpoch, NodeState};
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
    /// Fewer copies can be had than demanded.
    #[error("{copies} copies can be had where {wanted} are demanded: {why}")]
    NotEnoughCopies {
        /// Copies that could be made.
        copies: u32,
        /// Copies demanded.
        wanted: u32,
        /// What became of the others.
        why: String,
    },
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
    /// The chunk store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, retry) = match &error {
            Error::Setting { .. }
            | Error::Open(_)
            | Error::Listen { .. }
            | Error::Serve(_)
            | Error::Contract(_) => (ErrorCode::Internal, None),
            Error::Field(error) => (error.code(), None),
            Error::WrongCluster { .. } => (ErrorCode::WrongCluster, None),
            Error::NotRegistered => (ErrorCode::Unavailable, Some(NOT_READY_RETRY)),
            Error::TakesNoChunks(_) | Error::Stopping => (ErrorCode::Unavailable, None),
            Error::Busy(_) => (ErrorCode::Busy, Some(BUSY_RETRY)),
            Error::NotEnoughCopies { .. } => (ErrorCode::NotEnoughNodes, None),
            Error::OldEpoch { .. } => (ErrorCode::Stale, None),
            Error::PastEnd { .. } => (ErrorCode::InvalidArgument, None),
            Error::Store(error) => (error.code(), None),
        };
        Self { code, message: with_sources(&error), retry_after: retry }
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

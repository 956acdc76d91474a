//! What can go wrong in the namespace.

use std::fmt;
use std::time::Duration;

use dfs_types::{
    ChunkId, ClusterId, Denied, DfsPath, ErrorCode, FileKind, Incarnation, InodeId, Level, Name,
    NodeId, Target, XattrName,
};

use crate::engine::EngineError;

/// Why a call on the namespace failed. Nothing was changed, unless
/// [`code`](Self::code) is [`ErrorCode::OutcomeUnknown`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The caller has no right to do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is nothing at that path, or at a directory on the way.
    #[error("there is no {target}")]
    NotFound {
        /// The target, or the first part of its path that is missing.
        target: Target,
    },
    /// The directory that an upload goes to was deleted meanwhile.
    #[error("the directory that {name} was to be put into has been deleted; put it elsewhere")]
    ParentDeleted {
        /// The name of the file.
        name: Name,
    },
    /// Nothing that was deleted at that path can be restored.
    #[error("nothing that was deleted at {target} can still be restored")]
    NothingToRestore {
        /// Where it was.
        target: Target,
    },
    /// Something is in the way.
    #[error("{target} exists already; choose another name, or replace it explicitly")]
    AlreadyExists {
        /// Where.
        target: Target,
    },
    /// The name that an upload was bound to is taken.
    #[error("{name} exists already in its directory")]
    NameTaken {
        /// The name.
        name: Name,
    },
    /// A directory was to be removed or replaced that has entries.
    #[error("{target} is not empty; delete it recursively, or empty it first")]
    NotEmpty {
        /// Which.
        target: Target,
    },
    /// Something on the way, or at the end, is no directory.
    #[error("{target} is not a directory")]
    NotADirectory {
        /// What.
        target: Target,
    },
    /// A directory is where a file is wanted.
    #[error("{target} is a directory")]
    IsADirectory {
        /// Which.
        target: Target,
    },
    /// The name that an upload was bound to has become a directory.
    #[error("{name} is a directory by now; a file cannot replace it")]
    NameIsDirectory {
        /// The name.
        name: Name,
    },
    /// A directory would end up inside itself.
    #[error("{from} cannot be moved to {to}, which lies inside it")]
    WouldCycle {
        /// The directory.
        from: Target,
        /// Where it was to go.
        to: Target,
    },
    /// There is no such extended attribute.
    #[error("{target} has no extended attribute {name}")]
    NoXattr {
        /// The target.
        target: Target,
        /// The name of the attribute.
        name: XattrName,
    },
    /// An extended attribute that was to be created is set.
    #[error("{target} has the extended attribute {name} already")]
    XattrExists {
        /// The target.
        target: Target,
        /// The name of the attribute.
        name: XattrName,
    },
    /// The target of a call is not in the state that its precondition demands.
    #[error("{target} has changed since it was read; read it again")]
    Changed {
        /// The target.
        target: Target,
    },
    /// A call that is about a name was given an inode.
    #[error("{0} is addressed by its inode, but this call needs a name; give a path or a child")]
    NameNeeded(InodeId),
    /// Directories lie too deep in each other to be moved safely.
    #[error("directory {directory} lies more than {max} levels below the root")]
    TooDeep {
        /// The directory.
        directory: InodeId,
        /// Levels that are checked.
        max: usize,
    },
    /// The root directory cannot be removed, moved or replaced.
    #[error("the root directory cannot be removed, moved or replaced")]
    IsRoot,
    /// More symlinks were met than are followed.
    #[error("{path}: too many levels of symbolic links, at most {max} are followed")]
    TooManySymlinks {
        /// The path asked for.
        path: DfsPath,
        /// How many are followed.
        max: u32,
    },
    /// A symlink on the way names something that no name can be.
    #[error("{path}: a symbolic link on the way has a target that is not valid")]
    BadSymlink {
        /// The path asked for.
        path: DfsPath,
        /// What is wrong with the target.
        #[source]
        source: dfs_types::PathError,
    },
    /// A symlink was asked to be read as a file.
    #[error("{target} is a symbolic link, which has no bytes to read; follow it")]
    IsASymlink {
        /// Which.
        target: Target,
    },
    /// A named pipe, socket or device was asked to be read as a file.
    #[error("{target} is a special file ({kind:?}), of which no bytes are stored")]
    IsSpecial {
        /// Which.
        target: Target,
        /// What it is.
        kind: FileKind,
    },
    /// An argument is outside of what is allowed.
    #[error("{what}")]
    Invalid {
        /// Which, and what is allowed.
        what: String,
    },
    /// A token was not made by this cluster, or was changed.
    #[error("the upload token is not genuine; start the upload again")]
    ForgedToken,
    /// A token was made by another cluster.
    #[error("the upload token belongs to cluster {0}; start the upload again")]
    ForeignToken(ClusterId),
    /// A token's time is over, or it was made before the metadata was restored.
    #[error("the upload of {name} has expired; start it again")]
    UploadExpired {
        /// The file.
        name: Name,
    },
    /// The file was confirmed already, and is gone by now.
    #[error("{name} was confirmed already and was deleted since; nothing is brought back")]
    DeletedSince {
        /// The file.
        name: Name,
    },
    /// The same upload was confirmed before with other content.
    #[error("the upload of {name} was confirmed before with other content")]
    ConfirmedOtherwise {
        /// The file.
        name: Name,
    },
    /// A chunk was planned too long ago: the collector may have taken it.
    #[error("chunk {0} was planned too long ago; write it again")]
    BelowFloor(ChunkId),
    /// A chunk that was handed in was not planned, overlaps, or does not fit its plan.
    #[error("chunk {chunk}: {what}")]
    BadChunk {
        /// Which.
        chunk: ChunkId,
        /// What is wrong.
        what: String,
    },
    /// A receipt is not what the node it names gave out for this chunk.
    #[error("the receipt of node {node} for chunk {chunk} is not valid: {what}")]
    BadReceipt {
        /// The chunk.
        chunk: ChunkId,
        /// Who it names.
        node: NodeId,
        /// What is wrong.
        what: &'static str,
    },
    /// Nodes that hold replicas were drained or removed meanwhile, and too few are left.
    #[error(
        "chunk {chunk}: {have} of its replicas are on nodes that still take part, {wanted} are \
         needed; write it again"
    )]
    ReplicasGone {
        /// The chunk.
        chunk: ChunkId,
        /// Replicas on nodes that count.
        have: usize,
        /// Replicas needed.
        wanted: usize,
    },
    /// The chunks do not cover the file.
    #[error("the chunks of {name} do not cover it: {what}")]
    BadCover {
        /// The file.
        name: Name,
        /// What is missing or too much.
        what: String,
    },
    /// Too few nodes can take a chunk.
    #[error("{found} datanodes can take a chunk, {wanted} are needed; see `dfs status`")]
    NotEnoughNodes {
        /// Nodes that may take chunks.
        found: usize,
        /// Nodes needed.
        wanted: usize,
    },
    /// Enough nodes are there, but too few of them have room.
    #[error(
        "{found} datanodes have room for {bytes} bytes more, {wanted} are needed; delete \
         something or add disks"
    )]
    NoSpace {
        /// Nodes with room.
        found: usize,
        /// Nodes needed.
        wanted: usize,
        /// Bytes that the chunk may take.
        bytes: u64,
    },
    /// A file opened before was reaped since.
    #[error("inode {0} is gone: it was replaced or deleted; open the file again")]
    Stale(InodeId),
    /// The answers to a client's calls are no longer kept, so none of its calls can be repeated.
    #[error(
        "the answers given to this client are no longer kept, as its id is {} s too old: whether \
         its last call was carried out is not known; start it anew, and check that its clock is \
         right",
        .too_old.as_secs()
    )]
    ClientForgotten {
        /// How much earlier the client began, by its own clock, than the oldest that is answered.
        too_old: Duration,
    },
    /// A slot has moved on.
    #[error("request {sequence} of its slot was overtaken by request {newest}")]
    SlotOvertaken {
        /// The number of the call.
        sequence: u64,
        /// The newest number that was seen.
        newest: u64,
    },
    /// A slot and number were used for two different calls.
    #[error("request {sequence} of its slot was made before with other content")]
    SlotReused {
        /// The number.
        sequence: u64,
    },
    /// A call that leaves no trace needs a slot to be safe to repeat.
    #[error("a file without chunks can only be confirmed with a request slot")]
    SlotMissing,
    /// Others changed the same thing again and again.
    #[error("{what} was changed by others {tries} times in a row; try again")]
    Conflict {
        /// What was to be done.
        what: &'static str,
        /// How often it was tried.
        tries: u32,
    },
    /// The record of a chunk has changed since it was read.
    #[error("the record of chunk {0} has changed meanwhile; read it again")]
    ChunkChanged(ChunkId),
    /// There is no live record of the chunk.
    #[error("chunk {0} is not known, or no longer needed")]
    UnknownChunk(ChunkId),
    /// The last good replica of a chunk was to be given up.
    #[error("chunk {0} would be left without a good replica")]
    LastReplica(ChunkId),
    /// Another coordinator runs the background work by now.
    #[error("the worker lease has passed to another coordinator")]
    LeaseLost,
    /// A node is not part of the cluster.
    #[error("node {0} is not known to this cluster")]
    UnknownNode(NodeId),
    /// A node was removed for good.
    #[error("node {0} was removed from the cluster; empty its disks to let it join as a new node")]
    NodeRemoved(NodeId),
    /// A node registers with another secret than the one that is known of it.
    #[error("node {0} registered with another secret before: these are not the disks of that node")]
    WrongNodeSecret(NodeId),
    /// The disks of a node are an old image, or a second replica.
    #[error(
        "the disks of node {node} say registration {found}, but {expected} is in use: they are an \
         old image or a replica; empty them, or stop the other one"
    )]
    OldImage {
        /// The node.
        node: NodeId,
        /// What the disks say.
        found: u64,
        /// What is in use.
        expected: u64,
    },
    /// A registration is not the one in use.
    #[error("registration {found} of node {node} is not in use; register anew")]
    NotRegistered {
        /// The node.
        node: NodeId,
        /// The number it used.
        found: u64,
    },
    /// The store holds nothing.
    #[error(
        "the metadata store holds no cluster; make one with `dfs coordinator init`, or point to \
         the right store"
    )]
    NotInitialised,
    /// The store holds a cluster already.
    #[error("the metadata store holds cluster {0} already; nothing was changed")]
    AlreadyInitialised(ClusterId),
    /// A replica into the store has not come to its end.
    #[error(
        "the metadata store is an unfinished copy of cluster {0}; finish it with `dfs metadata \
         replica`, or point to the right store"
    )]
    UnfinishedMigration(ClusterId),
    /// The store holds another cluster.
    #[error("cluster {expected} was expected, but {found} was found")]
    WrongCluster {
        /// What was expected.
        expected: ClusterId,
        /// What is there.
        found: ClusterId,
    },
    /// The store is older than what was seen of this cluster.
    #[error(
        "the metadata has incarnation {found}, but {expected} has been seen: it is an old replica; \
         restore the newest"
    )]
    OlderIncarnation {
        /// What was seen.
        expected: Incarnation,
        /// What is there.
        found: Incarnation,
    },
    /// The store was made by a build from before the first release.
    #[error(
        "the metadata store was made by a build from before the first release, whose formats are \
         no longer read; make a new cluster in an empty store with `dfs coordinator init`"
    )]
    OldStore,
    /// The cluster needs a newer release than this one.
    #[error(
        "this release reads write levels up to {level}, the cluster needs {needed}: its upgrade \
         was finalized; start the release that it runs"
    )]
    ReleaseTooOld {
        /// What this release reads.
        level: Level,
        /// What the cluster needs.
        needed: Level,
    },
    /// A datanode runs an older release than the cluster needs.
    #[error(
        "node {node} reads write levels up to {level}, the cluster needs {needed}: its upgrade \
         was finalized; start the release that the cluster runs"
    )]
    NodeTooOld {
        /// The node.
        node: NodeId,
        /// What its release reads.
        level: Level,
        /// What the cluster needs.
        needed: Level,
    },
    /// A record was written by a newer release.
    #[error(
        "the record under {key} was written by a newer release: this one does not know {unknown}"
    )]
    NewerRecord {
        /// The key.
        key: String,
        /// What this release does not know.
        unknown: Unknown,
    },
    /// A record cannot be read, or contradicts another.
    #[error("the metadata is damaged: {what} under {key}")]
    Damaged {
        /// The key.
        key: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What a release does not know of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Its format.
    Format(u8),
    /// The optional field of this bit.
    Field(u32),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(format) => write!(f, "format {format}"),
            Self::Field(bit) => write!(f, "field {bit}"),
        }
    }
}

impl Error {
    /// The code it is told by.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. }
            | Self::ParentDeleted { .. }
            | Self::NothingToRestore { .. }
            | Self::NoXattr { .. }
            | Self::UnknownChunk(_)
            | Self::UnknownNode(_) => ErrorCode::NotFound,
            Self::XattrExists { .. }
            | Self::AlreadyExists { .. }
            | Self::NameTaken { .. }
            | Self::AlreadyInitialised(_) => ErrorCode::AlreadyExists,
            Self::NotEmpty { .. } => ErrorCode::NotEmpty,
            Self::NotADirectory { .. } => ErrorCode::NotADirectory,
            Self::IsADirectory { .. } | Self::NameIsDirectory { .. } => ErrorCode::IsADirectory,
            Self::WouldCycle { .. } => ErrorCode::WouldCycle,
            Self::BadSymlink { source, .. } if source.is_too_long() => ErrorCode::NameTooLong,
            Self::IsRoot
            | Self::NameNeeded(_)
            | Self::TooDeep { .. }
            | Self::TooManySymlinks { .. }
            | Self::BadSymlink { .. }
            | Self::IsASymlink { .. }
            | Self::IsSpecial { .. }
            | Self::Invalid { .. }
            | Self::ForgedToken
            | Self::BadChunk { .. }
            | Self::BadReceipt { .. }
            | Self::BadCover { .. }
            | Self::SlotReused { .. }
            | Self::SlotMissing => ErrorCode::InvalidArgument,
            Self::UploadExpired { .. }
            | Self::DeletedSince { .. }
            | Self::ConfirmedOtherwise { .. }
            | Self::BelowFloor(_)
            | Self::ReplicasGone { .. }
            | Self::Stale(_)
            | Self::ClientForgotten { .. }
            | Self::Changed { .. }
            | Self::SlotOvertaken { .. }
            | Self::LeaseLost
            | Self::NotRegistered { .. } => ErrorCode::Stale,
            Self::Conflict { .. } | Self::ChunkChanged(_) => ErrorCode::Conflict,
            Self::NotEnoughNodes { .. } => ErrorCode::NotEnoughNodes,
            Self::NoSpace { .. } => ErrorCode::NoSpace,
            Self::Denied(_) | Self::NodeRemoved(_) | Self::WrongNodeSecret(_) => {
                ErrorCode::PermissionDenied
            }
            Self::ForeignToken(_)
            | Self::OldImage { .. }
            | Self::NotInitialised
            | Self::UnfinishedMigration(_)
            | Self::WrongCluster { .. }
            | Self::OlderIncarnation { .. } => ErrorCode::WrongCluster,
            Self::OldStore
            | Self::ReleaseTooOld { .. }
            | Self::NodeTooOld { .. }
            | Self::NewerRecord { .. } => ErrorCode::UnsupportedVersion,
            Self::LastReplica(_) | Self::Damaged { .. } => ErrorCode::Internal,
            Self::Engine(error) => engine_code(error),
        }
    }
}

impl Error {
    /// The code of a process that cannot start because of it.
    pub fn start_code(&self) -> ErrorCode {
        match self {
            // There is nothing to start with yet.
            Self::NotInitialised => ErrorCode::NotFound,
            Self::Damaged { .. } => ErrorCode::Corrupt,
            Self::Engine(error) => error.start_code(),
            other => other.code(),
        }
    }
}

fn engine_code(error: &EngineError) -> ErrorCode {
    match error {
        EngineError::Unavailable(_)
        | EngineError::InUse(_)
        | EngineError::Refused(_)
        | EngineError::Compacted(_) => ErrorCode::Unavailable,
        EngineError::OutcomeUnknown(_) => ErrorCode::OutcomeUnknown,
        EngineError::NoSpace(_) => ErrorCode::NoSpace,
        EngineError::NewerFormat { .. } => ErrorCode::UnsupportedVersion,
        EngineError::Damaged(_) | EngineError::TooLarge(_) => ErrorCode::Internal,
    }
}

//! Errors of the namespace.

use std::fmt;

use dfs_types::{
    ChunkId, ClusterId, Denied, DfsPath, DiskId, ErrorCode, FileKind, Incarnation, InodeId, Level,
    Name, NodeId, Target, Timestamp, XattrName,
};

use crate::engine::EngineError;

/// Why a namespace call failed. Nothing was changed, unless [`code`](Self::code) is
/// [`ErrorCode::OutcomeUnknown`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The caller is not permitted to do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The target, or a directory on its path, does not exist.
    #[error("there is no {target}")]
    NotFound {
        /// The target, or the missing part of its path.
        target: Target,
    },
    /// The parent of an upload's name was deleted meanwhile.
    #[error(
        "the parent directory of {name} was deleted during the upload; upload to another directory"
    )]
    ParentDeleted {
        /// The name of the file.
        name: Name,
    },
    /// No deleted inode can be restored at that path.
    #[error("nothing deleted at {target} can still be restored")]
    NothingToRestore {
        /// Former name.
        target: Target,
    },
    /// The name is taken.
    #[error("{target} already exists; choose another name, or replace it explicitly")]
    AlreadyExists {
        /// The target.
        target: Target,
    },
    /// The name of an upload is taken.
    #[error("{name} already exists in its directory")]
    NameTaken {
        /// The name.
        name: Name,
    },
    /// A directory to be deleted or replaced has entries.
    #[error("{target} is not empty; delete it recursively, or empty it first")]
    NotEmpty {
        /// The directory.
        target: Target,
    },
    /// A component of the path is not a directory.
    #[error("{target} is not a directory")]
    NotADirectory {
        /// The component.
        target: Target,
    },
    /// The target is a directory where a file is required.
    #[error("{target} is a directory")]
    IsADirectory {
        /// The directory.
        target: Target,
    },
    /// The name of an upload has become a directory.
    #[error("{name} has become a directory; a file cannot replace it")]
    NameIsDirectory {
        /// The name.
        name: Name,
    },
    /// A directory would end up inside itself.
    #[error("{from} cannot be moved to {to}, which is inside it")]
    WouldCycle {
        /// The directory.
        from: Target,
        /// New name.
        to: Target,
    },
    /// The extended attribute does not exist.
    #[error("{target} has no extended attribute {name}")]
    NoXattr {
        /// The target.
        target: Target,
        /// The name of the attribute.
        name: XattrName,
    },
    /// The extended attribute to be created exists.
    #[error("{target} already has the extended attribute {name}")]
    XattrExists {
        /// The target.
        target: Target,
        /// The name of the attribute.
        name: XattrName,
    },
    /// Attributes of the namespace `user.` exist on files and directories only, as on Linux.
    #[error("{target} is a {}, and only files and directories have user.* attributes", .kind.name())]
    UserXattr {
        /// The target.
        target: Target,
        /// What it is.
        kind: FileKind,
    },
    /// The target does not match the precondition of the call.
    #[error("{target} has changed since it was read; read it again")]
    Changed {
        /// The target.
        target: Target,
    },
    /// A call that needs a name was given an inode.
    #[error("{0} is addressed by its inode, but this call needs a name; give a path or a child")]
    NameNeeded(InodeId),
    /// A directory is nested too deep to be moved safely.
    #[error("directory {directory} is more than {max} levels below the root")]
    TooDeep {
        /// The directory.
        directory: InodeId,
        /// Levels checked.
        max: usize,
    },
    /// The root directory cannot be removed, moved or replaced.
    #[error("the root directory cannot be removed, moved or replaced")]
    IsRoot,
    /// The path has more symlinks than are followed.
    #[error("{path}: too many levels of symbolic links (limit {max})")]
    TooManySymlinks {
        /// The requested path.
        path: DfsPath,
        /// Limit of symlinks.
        max: u32,
    },
    /// A symlink on the path has an invalid target.
    #[error("{path}: a symbolic link on the path has an invalid target")]
    BadSymlink {
        /// The requested path.
        path: DfsPath,
        /// Defect of the target.
        #[source]
        source: dfs_types::PathError,
    },
    /// The file to be read is a symlink.
    #[error("{target} is a symbolic link, which has no content; follow it")]
    IsASymlink {
        /// The symlink.
        target: Target,
    },
    /// The file to be read is a named pipe, socket or device.
    #[error("{target} is a special file ({kind:?}), which has no stored content")]
    IsSpecial {
        /// The special file.
        target: Target,
        /// Kind.
        kind: FileKind,
    },
    /// An argument is out of range.
    #[error("{what}")]
    Invalid {
        /// The argument and its range.
        what: String,
    },
    /// A token was not sealed by this cluster, or was altered.
    #[error("the upload token is not genuine; start the upload again")]
    ForgedToken,
    /// A token was issued by another cluster.
    #[error("the upload token belongs to cluster {0}; start the upload again")]
    ForeignToken(ClusterId),
    /// A token has expired, or is older than a restore of the metadata.
    #[error("the upload of {name} has expired; start it again")]
    UploadExpired {
        /// The file.
        name: Name,
    },
    /// The file was confirmed, but has been deleted since.
    #[error(
        "{name} was already confirmed and has been deleted since; upload it again to recreate it"
    )]
    DeletedSince {
        /// The file.
        name: Name,
    },
    /// The upload was confirmed before with other content.
    #[error("the upload of {name} was already confirmed with other content")]
    ConfirmedOtherwise {
        /// The file.
        name: Name,
    },
    /// A chunk was planned too long ago: it may have been collected.
    #[error("chunk {0} was planned too long ago; write it again")]
    BelowFloor(ChunkId),
    /// A chunk was not planned, overlaps another, or does not fit its plan.
    #[error("chunk {chunk}: {what}")]
    BadChunk {
        /// The chunk.
        chunk: ChunkId,
        /// Description of the defect.
        what: String,
    },
    /// A receipt was not issued for this chunk by the node it names.
    #[error("the receipt of node {node} for chunk {chunk} is invalid: {what}")]
    BadReceipt {
        /// The chunk.
        chunk: ChunkId,
        /// The node it names.
        node: NodeId,
        /// Description of the defect.
        what: &'static str,
    },
    /// A proof does not show what it was given for.
    #[error("the proof of node {node} that it read a replica of chunk {chunk} is invalid: {what}")]
    BadProof {
        /// The chunk.
        chunk: ChunkId,
        /// The node it names.
        node: NodeId,
        /// Description of the defect.
        what: &'static str,
    },
    /// A bad replica would be doomed while others are lacking.
    #[error("a bad replica of chunk {0} is kept until all its replicas are sound")]
    BadReplicaNeeded(ChunkId),
    /// Sound replicas would be doomed although no more of them are there than wanted.
    #[error("chunk {0} would be left with fewer sound replicas than wanted")]
    ReplicaNeeded(ChunkId),
    /// Too many of the nodes with replicas were drained or removed meanwhile.
    #[error(
        "chunk {chunk}: too few of its replicas are on nodes that are still members ({have} of the \
         {wanted} needed); write it again"
    )]
    ReplicasGone {
        /// The chunk.
        chunk: ChunkId,
        /// Replicas on members.
        have: usize,
        /// Replicas needed.
        wanted: usize,
    },
    /// The chunks do not cover the file.
    #[error("the chunks of {name} do not cover it: {what}")]
    BadCover {
        /// The file.
        name: Name,
        /// The gap or overlap.
        what: String,
    },
    /// Too few nodes can take a chunk.
    #[error("too few datanodes can take a chunk: {found} of the {wanted} needed; see `dfs status`")]
    NotEnoughNodes {
        /// Nodes that may take chunks.
        found: usize,
        /// Nodes needed.
        wanted: usize,
    },
    /// Enough nodes, but too few with room.
    #[error(
        "too few datanodes have room for {bytes} more bytes: {found} of the {wanted} needed; \
         delete files or add disks"
    )]
    NoSpace {
        /// Nodes with room.
        found: usize,
        /// Nodes needed.
        wanted: usize,
        /// Largest size of the chunk in bytes.
        bytes: u64,
    },
    /// A file opened before was reaped.
    #[error("inode {0} is gone: it was replaced or deleted; open the file again")]
    Stale(InodeId),
    /// The client's cached replies have expired, so its calls can no longer be retried safely.
    #[error(
        "the client started at {started} by its own clock, and at the coordinator it is {now}: \
         replies to a client that old are no longer kept, so it is unknown whether its last call \
         took effect; restart the client if it is that old, otherwise set the clock of its machine"
    )]
    ClientForgotten {
        /// When the client started, by its own clock.
        started: Timestamp,
        /// The time of the coordinator.
        now: Timestamp,
    },
    /// A newer call used the slot.
    #[error("request {sequence} of its slot was superseded by request {newest}")]
    SlotOvertaken {
        /// The number of the call.
        sequence: u64,
        /// The newest number seen.
        newest: u64,
    },
    /// A slot and number were used for two different calls.
    #[error("request {sequence} of its slot was used before with other content")]
    SlotReused {
        /// The number.
        sequence: u64,
    },
    /// A call without chunks needs a request slot to be idempotent.
    #[error("a file without chunks can only be confirmed with a request slot")]
    SlotMissing,
    /// Retries were exhausted by conflicting transactions.
    #[error("{what} conflicted with concurrent changes {tries} times; try again")]
    Conflict {
        /// Object of the change.
        what: &'static str,
        /// Number of attempts.
        tries: u32,
    },
    /// The chunk record has changed since it was read.
    #[error("the record of chunk {0} has changed; read it again")]
    ChunkChanged(ChunkId),
    /// The chunk has no live record.
    #[error("chunk {0} is unknown, or no longer needed")]
    UnknownChunk(ChunkId),
    /// The change would drop the last good replica of a chunk.
    #[error("chunk {0} would be left without a good replica")]
    LastReplica(ChunkId),
    /// The metadata was restored, migrated or set back, and deletion was not acknowledged since.
    #[error("nothing is deleted for incarnation {0} of the metadata until `dfs gc acknowledge`")]
    DeletionHeld(Incarnation),
    /// Another coordinator now holds the worker lease.
    #[error("the worker lease has passed to another coordinator")]
    LeaseLost,
    /// A node is not part of the cluster.
    #[error("node {0} is not known to this cluster")]
    UnknownNode(NodeId),
    /// A node has no such disk.
    #[error("node {node} has no disk {disk}")]
    UnknownDisk {
        /// The node.
        node: NodeId,
        /// The disk.
        disk: DiskId,
    },
    /// A node was removed for good.
    #[error("node {0} was removed from the cluster; empty its disks to let it join as a new node")]
    NodeRemoved(NodeId),
    /// A node registered with a secret other than its own.
    #[error(
        "node {0} was first registered with another secret: these are not the disks of that node"
    )]
    WrongNodeSecret(NodeId),
    /// The disks of a node are an old image or a clone.
    #[error(
        "the disks of node {node} have registration {found}, but {expected} is in use: all of them \
         are older copies; if no other process uses the newer ones, and those are gone, let this \
         node join with `dfs node readmit {node}`"
    )]
    OldImage {
        /// The node.
        node: NodeId,
        /// Registration on the disks.
        found: u64,
        /// Registration in use.
        expected: u64,
    },
    /// A registration is not in use.
    #[error("registration {found} of node {node} is not in use; register again")]
    NotRegistered {
        /// The node.
        node: NodeId,
        /// Registration number.
        found: u64,
    },
    /// The store is empty.
    #[error(
        "the metadata store holds no cluster; create one with `dfs coordinator init`, or point to \
         the right store"
    )]
    NotInitialised,
    /// The store already holds a cluster.
    #[error("the metadata store already holds cluster {0}; nothing was changed")]
    AlreadyInitialised(ClusterId),
    /// The store is an unfinished migration target.
    #[error(
        "the metadata store is an unfinished copy of cluster {0}; finish it with `dfs metadata \
         migrate`, or point to the right store"
    )]
    UnfinishedMigration(ClusterId),
    /// The store holds another cluster.
    #[error("cluster {expected} was expected, but {found} was found")]
    WrongCluster {
        /// Expected cluster.
        expected: ClusterId,
        /// Cluster found.
        found: ClusterId,
    },
    /// The store is older than a state of this cluster seen before.
    #[error(
        "the metadata has incarnation {found}, but {expected} has been seen: it is an old copy; \
         restore the newest one"
    )]
    OlderIncarnation {
        /// Incarnation seen before.
        expected: Incarnation,
        /// Incarnation found.
        found: Incarnation,
    },
    /// The store was created by a build from before the first release.
    #[error(
        "the metadata store was created by a build from before the first release, whose formats \
         are no longer read; create a new cluster in an empty store with `dfs coordinator init`"
    )]
    OldStore,
    /// The cluster needs a newer release than this one.
    #[error(
        "this release reads write levels up to {level}, but the cluster needs {needed}, because \
         its upgrade was finalized; start the release that the cluster runs"
    )]
    ReleaseTooOld {
        /// Newest level that this release reads.
        level: Level,
        /// Level that the cluster needs.
        needed: Level,
    },
    /// A datanode runs an older release than the cluster needs.
    #[error(
        "node {node} reads write levels up to {level}, but the cluster needs {needed}, because \
         its upgrade was finalized; start the release that the cluster runs"
    )]
    NodeTooOld {
        /// The node.
        node: NodeId,
        /// Newest level that its release reads.
        level: Level,
        /// Level that the cluster needs.
        needed: Level,
    },
    /// A record was written by a newer release.
    #[error(
        "the record under {key} was written by a newer release: this one does not know {unknown}"
    )]
    NewerRecord {
        /// The key.
        key: String,
        /// The unknown format or field.
        unknown: Unknown,
    },
    /// A record is unreadable, or contradicts another.
    #[error("the metadata is damaged: {what} under {key}")]
    Damaged {
        /// The key.
        key: String,
        /// Description of the damage.
        what: &'static str,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The part of a record that a release does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Format.
    Format(u8),
    /// The optional field with this bit.
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
    /// Returns its error code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. }
            | Self::ParentDeleted { .. }
            | Self::NothingToRestore { .. }
            | Self::NoXattr { .. }
            | Self::UnknownChunk(_)
            | Self::UnknownNode(_)
            | Self::UnknownDisk { .. } => ErrorCode::NotFound,
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
            | Self::UserXattr { .. }
            | Self::Invalid { .. }
            | Self::ForgedToken
            | Self::BadChunk { .. }
            | Self::BadReceipt { .. }
            | Self::BadProof { .. }
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
            Self::DeletionHeld(_) => ErrorCode::Unavailable,
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
            Self::LastReplica(_)
            | Self::BadReplicaNeeded(_)
            | Self::ReplicaNeeded(_)
            | Self::Damaged { .. } => ErrorCode::Internal,
            Self::Engine(error) => engine_code(error),
        }
    }
}

impl Error {
    /// Returns the code with which a process that cannot start because of it exits.
    pub fn start_code(&self) -> ErrorCode {
        match self {
            // The store may be initialised later.
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

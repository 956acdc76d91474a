//! The client SDK of dfs.
//!
//! ```text
//!  Client ── names, plans, commits ──► any coordinator     (retried; safe to repeat)
//!     │ put: chunks in parallel, each to a primary that forwards it to the other replicas
//!     └ get: pieces in parallel, each from the nearest replica; from another if it is slow or bad
//! ```
//!
//! A datanode that cannot be connected to is called through a coordinator, which relays streams.
//! Everything a user needs is exported here; no other crate of dfs has to be named.
//!
//! # Connecting
//!
//! A [`Client`] belongs to one cluster and is cheap to clone: clones share connections, one memory
//! budget and one set of request slots. Nothing is dialled before the first call, and coordinators
//! are replaced by one another when they fail.
//!
//! ```
//! use std::time::Duration;
//! use dfs_client::Client;
//!
//! # fn main() -> Result<(), dfs_client::Error> {
//! let client = Client::builder()
//!     .coordinators(["http://dfs-0:7070".to_owned(), "http://dfs-1:7070".to_owned()])
//!     .deadline(Duration::from_secs(30))
//!     .memory_budget(256 << 20)
//!     .connect_lazy()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Putting and getting
//!
//! [`Client::put`] takes bytes, a local file or a reader. [`Client::get`] opens a file by its path
//! or its inode; [`Client::read_range`] returns a part of one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = dfs_fake::Cluster::start(3).await;
//! # let client = dfs_fake::client!(cluster);
//! use dfs_client::{DfsPath, GetOptions, PutOptions, PutSource};
//!
//! let path = DfsPath::new("/greeting")?;
//! client.put(&path, PutSource::bytes("hello"), PutOptions::default()).await?;
//! let mut reader = client.get(&path, GetOptions::default()).await?;
//! while let Some(bytes) = reader.next().await? {
//!     assert_eq!(bytes, "hello");
//! }
//! assert_eq!(client.read_range(&path, 1, 3).await?, "ell");
//! # Ok(())
//! # }
//! ```
//!
//! # Streaming
//!
//! [`Client::create`] returns an [`Upload`], which is written incrementally; its memory is bounded
//! by the budget of the client, and [`Upload::write`] waits while that is exhausted. A
//! [`FileReader`] is a `Stream` of `Bytes`, an `AsyncRead` and an `AsyncSeek`, and reads ahead
//! within the same budget.
//!
//! # Listing, walking, copying trees
//!
//! [`Client::list`] returns the entries of a directory, [`Client::walk`] everything below one, and
//! [`Client::du`] the sizes: streams that use constant memory. [`Client::put_tree`] and
//! [`Client::get_tree`] copy trees with bounded parallelism; a [`TreeObserver`] is notified of the
//! result of each entry, and decides whether the copy continues after an error.
//!
//! # Errors and retries
//!
//! A call is retried until it succeeds, fails for a reason that no retry can change, or its
//! deadline expires: 60 s by default, see [`ClientBuilder::deadline`]. Retries are safe, also of
//! changes: coordinators recognise a repeated call. An [`Error`] has an [`ErrorCode`] from a closed
//! list, states whether a later repeat may help ([`Error::is_retryable`]) and whether the call may
//! have taken effect nevertheless ([`Error::is_outcome_unknown`]), and names the request id under
//! which servers have logged it. Converted to [`std::io::Error`] it keeps its kind.
//!
//! # Cancellation
//!
//! Every future may be dropped. A call that changes something may or may not have taken effect
//! then; its resources are released. A dropped [`Client::put`] or [`Upload`] is aborted in the
//! background within a few seconds, and its stored chunks are deleted. A program that drops some
//! before it exits waits for [`Client::settled`]. `next` of readers and listings is cancel-safe.
//!
//! # Durability
//!
//! When [`Client::put`] or [`Upload::finish`] returns, every chunk has been synced to disk on at
//! least the cluster's minimum number of write replicas, and the name is durable. A file appears
//! completely or not at all, and replaces an older one atomically; readers that have the older one
//! open continue with it. There is no faster, less durable mode. Every block that is read has been
//! verified against the checksum that its writer computed. Files written to the local disk are not
//! synced.
//!
//! See `examples/` in this crate for complete programs.

mod admin;
mod builder;
mod chunk_checksum;
mod chunk_upload;
mod commit;
mod coordinator_call;
mod coordinators;
mod du;
mod error;
mod explain;
mod file_replication;
mod get_to_file;
mod in_progress;
mod layout;
mod listing;
mod local;
mod memory_budget;
mod metadata;
mod model;
mod options;
mod pieces;
mod plan;
mod put;
mod read_failover;
mod reader;
mod replica_order;
mod replica_read;
mod routes;
mod slots;
mod source;
mod stats;
mod tree;
mod upload;
mod walk;
mod xattrs;

pub use dfs_types::{
    Attributes, ByteSize, Change, DfsPath, ErrorCode, FileKind, FileTime, InodeId, Name, PathError,
    Precondition, ReplicaHealth, RequestId, Target, XattrName,
};

pub use admin::{
    Admin, ClusterStatus, DamagedChunk, DiskStatus, FailingTarget, GcHold, GcStatus, Maintenance,
    MaintenanceRequest, MovePlan, NeededChunk, NodeLoss, NodeStatus, Readmission,
    ReconciliationStatus, RefusedNode, ReplicaCheck, Replication, ReplicationStatus, StopSafety,
    UnneededReplica, UpgradeStatus, WorkerActivity, WorkerChange, WorkerStatus, WorkerUnit,
    Workers,
};
pub use builder::{Client, ClientBuilder, Components};
pub use du::{DiskUsage, Usage};
pub use error::Error;
pub use explain::{ExplainedChunk, ExplainedReplica, Explanation};
pub use file_replication::FileReplication;
pub use listing::Listing;
pub use model::{AttributeChanges, Entry, FileStat, Follow};
pub use options::{
    DeleteOptions, GetOptions, MakeDirectoryOptions, ProgressObserver, PutOptions, RenameOptions,
    SymlinkOptions,
};
pub use reader::FileReader;
pub use source::PutSource;
pub use stats::Stats;
pub use tree::{Copied, OnError, TreeObserver, TreeOptions, TreeReport};
pub use upload::Upload;
pub use walk::{Walk, WalkEntry};
pub use xattrs::XattrMode;

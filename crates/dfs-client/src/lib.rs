//! The client SDK of dfs.
//!
//! ```text
//!  Client ── names, plans, commits ──► any coordinator     (retried, safe to repeat)
//!     │ put: chunks in parallel, each to a primary that hands it on
//!     └ get: pieces in parallel, each from the nearest replica, another one when it is slow or bad
//! ```
//!
//! A datanode that cannot be connected to is called through a coordinator, which passes streams on.
//!
//! A [`Client`] is cheap to clone; clones share connections, one budget of memory and one set of
//! request slots. Every block that is read has been checked against the checksum its writer
//! computed. Errors say whether a repeat may help ([`Error::is_retryable`]) and whether the call
//! may have taken effect ([`Error::is_outcome_unknown`]); the client has then tried for as long as
//! its deadline allows.
//!
//! ```
//! # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/fake/mod.rs")); }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = fake::Cluster::start(3).await;
//! # let client = cluster.client();
//! use dfs_client::{Client, PutOptions, PutSource};
//! use dfs_types::DfsPath;
//!
//! let client = Client::builder().coordinator("http://127.0.0.1:7070").connect_lazy()?;
//! # let client = cluster.client();
//! let path = DfsPath::new("/greeting")?;
//! client.put(&path, PutSource::bytes("hello"), PutOptions::default()).await?;
//! assert_eq!(client.read_range(&path, 0, 5).await?, "hello");
//! # Ok(())
//! # }
//! ```

mod admin;
mod budget;
mod builder;
mod call;
mod chunk_upload;
mod commit;
mod coordinators;
mod error;
mod explain;
mod fetch;
mod layout;
mod metadata;
mod model;
mod options;
mod pieces;
mod put;
mod reader;
mod replica_read;
mod routes;
mod slots;
mod source;
mod stats;
mod upload;
mod whole;

pub use dfs_types::{
    Attributes, ByteSize, DfsPath, ErrorCode, FileKind, FileTime, InodeId, Name, PathError,
    RequestId,
};

pub use admin::{
    Admin, ClusterStatus, DiskStatus, Maintenance, MaintenanceRequest, NodeStatus, Replication,
    ReplicationStatus, StopSafety, WorkerStatus,
};
pub use builder::{Client, ClientBuilder, Components};
pub use error::Error;
pub use explain::{ExplainedChunk, ExplainedReplica, Explanation};
pub use metadata::Listing;
pub use model::{AttributeChanges, Entry, FileStat, Follow};
pub use options::{
    DeleteOptions, GetOptions, MakeDirectoryOptions, ProgressObserver, PutOptions, RenameOptions,
    SymlinkOptions,
};
pub use reader::FileReader;
pub use source::PutSource;
pub use stats::Stats;

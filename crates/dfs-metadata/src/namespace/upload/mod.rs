//! Uploads: plans as tokens, staging, and the commit that makes a file appear.

mod check_receipts;
mod confirm;
mod plan;
mod stage;
mod token;

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_types::{
    Attributes, ChunkId, ChunkSeal, InodeId, NodeId, Precondition, Receipt, Target, Timestamp,
    XattrName,
};

use super::Namespace;
use crate::placement::{Candidate, NodeSelector};
pub(super) use confirm::FinishedUpload;
pub use plan::PLAN_LIFETIME;

/// Candidate nodes for chunks, and how to choose among them.
#[derive(Clone, Copy)]
pub struct Placement<'a> {
    /// Nodes whose state allows new chunks, including full ones.
    pub candidates: &'a [Candidate],
    /// Selects among the candidates.
    pub selector: &'a dyn NodeSelector,
}

/// Starts an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanUpload {
    /// Path of the file; a symlink at its end is followed.
    pub target: Target,
    /// Size in bytes, when known.
    pub size: Option<u64>,
    /// Largest chunk in bytes; [`dfs_types::CHUNK_SIZE_DEFAULT`] when not set.
    pub chunk_size: Option<u64>,
    /// Replicas wanted; the cluster's default when not set.
    pub replication_factor: Option<u8>,
    /// Chunks per page; 0, or above [`Namespace::PLAN_CHUNKS_MAX`], for that many.
    pub max_chunks: usize,
    /// Machine of the client; may be empty.
    pub client_host: String,
    /// Zone of the client; may be empty.
    pub client_zone: String,
}

/// Requests the next page of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextPage {
    /// Any token of the upload.
    pub token: Bytes,
    /// Offset in the file at which the page starts; a multiple of the chunk size.
    pub from_offset: u64,
    /// Chunks per page, as in [`PlanUpload`].
    pub max_chunks: usize,
}

/// Requests a new plan for one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replan {
    /// A token that contains the chunk.
    pub token: Bytes,
    /// The chunk.
    pub chunk: ChunkId,
    /// Nodes to avoid.
    pub avoid: Vec<NodeId>,
}

/// A page of the plan of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPlan {
    /// The plan, sealed.
    pub token: Bytes,
    /// The new inode.
    pub inode: InodeId,
    /// Largest chunk in bytes.
    pub chunk_size: u64,
    /// Chunks in file order.
    pub chunks: Vec<PlannedChunk>,
    /// Expiry of the token.
    pub expires: Timestamp,
    /// Set if the known size needs another page.
    pub has_more: bool,
    /// Replicas wanted.
    pub replication_factor: u8,
    /// Durable replicas required of each chunk.
    pub min_write_replicas: u8,
}

/// A chunk to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChunk {
    /// Id.
    pub chunk: ChunkId,
    /// Offset in the file.
    pub file_offset: u64,
    /// Largest length in bytes.
    pub max_length: u64,
    /// Nodes to hold it; the first is the primary.
    pub nodes: Vec<NodeId>,
}

/// A chunk that was written, with the proof of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenChunk {
    /// Id.
    pub chunk: ChunkId,
    /// Offset in the file.
    pub file_offset: u64,
    /// Length and checksums.
    pub seal: ChunkSeal,
    /// One from each node that holds it.
    pub receipts: Vec<Receipt>,
}

/// Makes a file appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// The tokens that planned the chunks, at least one.
    pub tokens: Vec<Bytes>,
    /// The chunks not staged yet, in any order.
    pub chunks: Vec<WrittenChunk>,
    /// Size of the file in bytes.
    pub size: u64,
    /// Mode, owner, group, mtime.
    pub attributes: Attributes,
    /// Precondition on the name.
    pub precondition: Option<Precondition>,
    /// Extended attributes, within the bounds of [`XattrName`].
    pub xattrs: BTreeMap<XattrName, Bytes>,
}

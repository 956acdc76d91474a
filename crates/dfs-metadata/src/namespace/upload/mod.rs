//! Uploads: plans as tokens, staging, and the commit that makes a file appear.

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

/// Who may take chunks, and how to choose among them.
#[derive(Clone, Copy)]
pub struct Placement<'a> {
    /// Nodes that may take new chunks as far as their state goes, full ones included.
    pub candidates: &'a [Candidate],
    /// Chooses.
    pub selector: &'a dyn NodeSelector,
}

/// Starts an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanUpload {
    /// Where the file will be; a symlink at the end of a path is followed.
    pub target: Target,
    /// Its bytes, when known.
    pub size: Option<u64>,
    /// Bytes a chunk holds at most; [`dfs_types::CHUNK_SIZE_DEFAULT`] when not set.
    pub chunk_size: Option<u64>,
    /// Replicas wanted; the cluster's number when not set.
    pub replication_factor: Option<u8>,
    /// Chunks in this page; 0, or above [`Namespace::PLAN_CHUNKS_MAX`], for that many.
    pub max_chunks: usize,
    /// Machine of the client; may be empty.
    pub client_host: String,
    /// Zone of the client; may be empty.
    pub client_zone: String,
}

/// Asks for the next page of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextPage {
    /// Any token of the upload.
    pub token: Bytes,
    /// Where in the file the page starts; a multiple of the chunk size.
    pub from_offset: u64,
    /// As in [`PlanUpload`].
    pub max_chunks: usize,
}

/// Asks for one chunk to be planned anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replan {
    /// A token that holds the chunk.
    pub token: Bytes,
    /// The chunk.
    pub chunk: ChunkId,
    /// Nodes not to be used.
    pub avoid: Vec<NodeId>,
}

/// A page of the plan of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPlan {
    /// The plan, sealed.
    pub token: Bytes,
    /// The new inode.
    pub inode: InodeId,
    /// Bytes a chunk holds at most.
    pub chunk_size: u64,
    /// In file order.
    pub chunks: Vec<PlannedChunk>,
    /// Until when the token is honoured.
    pub expires: Timestamp,
    /// Whether the known size needs a further page.
    pub has_more: bool,
    /// Replicas wanted.
    pub replication_factor: u8,
    /// Durable replicas without which a chunk is not accepted.
    pub min_write_replicas: u8,
}

/// A chunk to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChunk {
    /// Its id.
    pub chunk: ChunkId,
    /// Where in the file it starts.
    pub file_offset: u64,
    /// Bytes it may hold.
    pub max_length: u64,
    /// Who shall hold it; the first is the primary.
    pub nodes: Vec<NodeId>,
}

/// A chunk that was written, with the proof of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenChunk {
    /// Its id.
    pub chunk: ChunkId,
    /// Where in the file it starts.
    pub file_offset: u64,
    /// Its length and checksums.
    pub seal: ChunkSeal,
    /// From each node that holds it.
    pub receipts: Vec<Receipt>,
}

/// Makes a file appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// The tokens that planned the chunks, at least one.
    pub tokens: Vec<Bytes>,
    /// The chunks not staged yet, in any order.
    pub chunks: Vec<WrittenChunk>,
    /// Bytes of the file.
    pub size: u64,
    /// Mode, owner, group, mtime.
    pub attributes: Attributes,
    /// What must hold of the name.
    pub precondition: Option<Precondition>,
    /// Extended attributes, within the bounds of [`XattrName`].
    pub xattrs: BTreeMap<XattrName, Bytes>,
}

//! The plan of an upload: tokens, planned chunks, chunks written.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::v1;
use dfs_proto::wire::WireId as _;
use dfs_proto::wire::{self, FieldError};
use dfs_types::{ChunkId, ChunkSeal, DfsPath, InodeId, NodeId, Receipt, Target};
use tokio::time::Instant;

use crate::{Client, Error, PutOptions};

/// Chunks planned at a time. Few, so that a plan is still fresh when its last chunk is written.
const PLAN_PAGE: u32 = 16;

/// Maximum age of a plan when a chunk of it is started; an older one is requested again.
const PLAN_FRESH: Duration = Duration::from_mins(15);

/// A datanode as named by a plan or an open file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: String,
    pub(crate) zone: String,
    pub(crate) host: String,
    pub(crate) wire: v1::NodeLocation,
}

impl Node {
    pub(crate) fn from_wire(wire: v1::NodeLocation) -> Result<Self, FieldError> {
        Ok(Self {
            id: wire::id("nodes.node_id", &wire.node_id)?,
            address: wire.address.clone(),
            zone: wire.zone.clone(),
            host: wire.host.clone(),
            wire,
        })
    }
}

/// A chunk to be written, with the token that plans it.
#[derive(Debug, Clone)]
pub(crate) struct PlannedChunk {
    pub(crate) id: ChunkId,
    pub(crate) file_offset: u64,
    pub(crate) max_length: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) token: Bytes,
}

/// A chunk that is durable, with the token that planned it.
#[derive(Debug, Clone)]
pub(crate) struct WrittenChunk {
    pub(crate) planned: PlannedChunk,
    pub(crate) seal: ChunkSeal,
    pub(crate) receipts: Vec<Receipt>,
}

/// The plan of an upload, fetched page by page.
#[derive(Debug, Clone)]
pub(crate) struct UploadPlan {
    pub(crate) path: DfsPath,
    pub(crate) inode: InodeId,
    pub(crate) token: Bytes,
    pub(crate) min_replicas: u32,
    planned: VecDeque<PlannedChunk>,
    planned_at: Instant,
    /// Offset of the next page of the plan; `None` at its end.
    next_page: Option<u64>,
}

impl UploadPlan {
    /// Requests the first page of a plan.
    pub(crate) async fn start(
        client: &Client,
        path: &DfsPath,
        size: Option<u64>,
        options: &PutOptions,
        chunk_size: Option<u64>,
    ) -> Result<Self, Error> {
        let request = v1::UploadRequest {
            target: Some(Target::from(path).into()),
            size,
            chunk_size,
            replication_factor: options.replication_factor,
            token: Bytes::new(),
            from_offset: 0,
            max_chunks: if size.is_some() { PLAN_PAGE } else { 1 },
            client_host: client.inner.host.clone(),
            client_zone: client.inner.zone.clone(),
        };
        let context = path.to_string();
        let plan = plan(client, &context, &request).await?;
        let mut page = Self {
            path: path.clone(),
            inode: InodeId(plan.inode),
            token: plan.token.clone(),
            min_replicas: plan.min_write_replicas,
            planned: VecDeque::new(),
            planned_at: Instant::now(),
            next_page: None,
        };
        page.take_page(plan, size.is_none()).map_err(|error| Error::wire(context, &error))?;
        Ok(page)
    }

    /// Returns the next chunk of the plan; `None` when a known size is planned to its end.
    pub(crate) async fn next_chunk(
        &mut self,
        client: &Client,
        is_open_ended: bool,
    ) -> Result<Option<PlannedChunk>, Error> {
        if self.planned_at.elapsed() > PLAN_FRESH
            && let Some(next) = self.planned.front()
        {
            self.next_page = Some(next.file_offset);
            self.planned.clear();
        }
        if let (true, Some(from_offset)) = (self.planned.is_empty(), self.next_page) {
            let request = v1::UploadRequest {
                token: self.token.clone(),
                from_offset,
                max_chunks: PLAN_PAGE,
                client_host: client.inner.host.clone(),
                client_zone: client.inner.zone.clone(),
                ..v1::UploadRequest::default()
            };
            let context = self.path.to_string();
            let plan = plan(client, &context, &request).await?;
            self.take_page(plan, is_open_ended).map_err(|error| Error::wire(context, &error))?;
        }
        Ok(self.planned.pop_front())
    }

    fn take_page(&mut self, plan: v1::UploadPlan, is_open_ended: bool) -> Result<(), FieldError> {
        let has_more = plan.has_more || is_open_ended;
        let chunks = chunks_of(plan)?;
        let end = chunks.last().map(|chunk| chunk.file_offset + chunk.max_length);
        self.next_page = end.filter(|_| has_more);
        self.planned.extend(chunks);
        self.planned_at = Instant::now();
        Ok(())
    }

    /// Requests a new plan of a chunk, avoiding the nodes `avoid`.
    pub(crate) async fn replan(
        client: &Client,
        context: &str,
        chunk: &PlannedChunk,
        avoid: &[NodeId],
    ) -> Result<PlannedChunk, Error> {
        let request = v1::ReplanRequest {
            token: chunk.token.clone(),
            chunk_id: chunk.id.to_wire(),
            avoid_nodes: avoid.iter().map(|node| node.to_wire()).collect(),
        };
        let answer = client.call(context, |mut c| {
            let request = request.clone();
            async move { c.replan_chunk(request).await }
        });
        let chunks = chunks_of(answer.await?);
        let chunk = chunks.and_then(|chunks| wire::required("chunks", chunks.into_iter().next()));
        chunk.map_err(|error| Error::wire(context, &error))
    }
}

async fn plan(
    client: &Client,
    context: &str,
    request: &v1::UploadRequest,
) -> Result<v1::UploadPlan, Error> {
    let answer = client.call(context, |mut c| {
        let request = request.clone();
        async move { c.upload_file(request).await }
    });
    answer.await
}

fn chunks_of(plan: v1::UploadPlan) -> Result<Vec<PlannedChunk>, FieldError> {
    let token = plan.token;
    let chunks = plan.chunks.into_iter().map(|chunk| {
        let nodes = chunk.nodes.into_iter().map(Node::from_wire).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(FieldError::new("chunks.nodes", "is empty"));
        }
        Ok(PlannedChunk {
            id: wire::id("chunks.chunk_id", &chunk.chunk_id)?,
            file_offset: chunk.file_offset,
            max_length: chunk.max_length,
            nodes,
            token: token.clone(),
        })
    });
    chunks.collect()
}

impl From<&WrittenChunk> for v1::WrittenChunk {
    fn from(chunk: &WrittenChunk) -> Self {
        Self {
            chunk_id: chunk.planned.id.to_wire(),
            file_offset: chunk.planned.file_offset,
            length: chunk.seal.length,
            crc32c: chunk.seal.crc32c.0,
            sha256: chunk.seal.sha256.0.to_vec().into(),
            receipts: chunk.receipts.iter().map(|receipt| (*receipt).into()).collect(),
        }
    }
}

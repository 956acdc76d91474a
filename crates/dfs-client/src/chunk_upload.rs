//! Upload of one chunk, over as many plans as it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::WireId as _;
use dfs_proto::{Failure, v1, wire};
use dfs_streamer::{
    Attachment, ChunkBytes, FrameSource, Link, Outcome, SenderConfig, chunk_source, grpc,
    send_chunk,
};
use dfs_transport::Lane;
use dfs_types::{BLOCK_SIZE, ChunkSeal, DfsPath, ErrorCode, Frame, NodeId, Part, SessionId};
use tokio::time::{Instant, sleep};

use crate::coordinator_call::jittered;
use crate::plan::{Node, PlannedChunk, UploadPlan, WrittenChunk};
use crate::stats::count;
use crate::{Client, Error, ProgressObserver};

/// Maximum number of additional plans of a chunk.
const REPLANS_MAX: usize = 8;
/// Pause before the first additional plan; doubles with each one.
const REPLAN_PAUSE: Duration = Duration::from_millis(25);
/// Time limit of a prepare.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);
/// Time limit for a datanode to accept a stream; a sender may give up sooner.
const ATTACH_WITHIN: Duration = Duration::from_secs(15);
/// Time that a busy datanode is waited for before the chunk is placed elsewhere.
const BUSY_WITHIN: Duration = Duration::from_secs(15);

/// A chunk to be made durable.
pub(crate) struct ChunkUpload {
    pub(crate) client: Client,
    pub(crate) path: DfsPath,
    pub(crate) inode: u64,
    pub(crate) min_replicas: u32,
    pub(crate) bytes: Arc<dyn ChunkBytes>,
    pub(crate) progress: Option<ProgressObserver>,
}

/// Why a plan of a chunk failed, and which nodes to avoid in the next one.
struct Attempt {
    error: Error,
    avoid: Vec<NodeId>,
    is_final: bool,
}

impl ChunkUpload {
    /// Sends the chunk until enough nodes hold it. Each attempt has a new id and avoids nodes that
    /// failed.
    pub(crate) async fn write(self, mut chunk: PlannedChunk) -> Result<WrittenChunk, Error> {
        let mut avoid: Vec<NodeId> = Vec::new();
        let reported = AtomicU64::new(0);
        for replans in 0.. {
            let attempt = match self.attempt(&chunk, &reported).await {
                Ok(written) => return Ok(written),
                Err(attempt) => attempt,
            };
            if replans >= REPLANS_MAX || attempt.is_final {
                return Err(attempt.error);
            }
            for node in attempt.avoid {
                self.client.inner.penalties.add(node);
                if !avoid.contains(&node) {
                    avoid.push(node);
                }
            }
            if replans > 0 {
                let pause = REPLAN_PAUSE * 2_u32.pow(replans as u32);
                sleep(jittered(pause, self.client.inner.random.as_ref())).await;
            }
            tracing::info!(chunk = %chunk.id, error = %attempt.error, "replanning a chunk");
            count(&self.client.inner.counters.replans);
            let context = self.path.to_string();
            chunk = match UploadPlan::replan(&self.client, &context, &chunk, &avoid).await {
                Err(error) if error.code() == ErrorCode::NotEnoughNodes && !avoid.is_empty() => {
                    // The nodes to avoid may have recovered.
                    avoid.clear();
                    UploadPlan::replan(&self.client, &context, &chunk, &avoid).await?
                }
                replanned => replanned?,
            };
        }
        unreachable!("the loop ends by returning")
    }

    async fn attempt(
        &self,
        chunk: &PlannedChunk,
        reported: &AtomicU64,
    ) -> Result<WrittenChunk, Attempt> {
        let client = &self.client;
        let context = format!("{} chunk {} at {}", self.path, chunk.id, chunk.nodes[0].address);
        let primary = chunk.nodes[0].id;
        let failed = |code, message: String| Attempt {
            error: Error::new(code, context.clone(), message),
            // With too few replicas, the primary was the one that worked.
            avoid: match code {
                ErrorCode::NotEnoughNodes => chunk.nodes[1..].iter().map(|node| node.id).collect(),
                _ => vec![primary],
            },
            is_final: matches!(
                code,
                ErrorCode::WrongCluster | ErrorCode::InvalidArgument | ErrorCode::PermissionDenied
            ),
        };
        let ready = match self.prepare(chunk).await {
            Ok(ready) => ready,
            Err(failure) => return Err(failed(failure.code, failure.message)),
        };
        let session = wire::id::<SessionId>("session_id", &ready.session_id);
        let session = session.map_err(|e| failed(ErrorCode::Internal, e.to_string()))?;
        let link = NodeLink {
            client: client.clone(),
            node: chunk.nodes[0].clone(),
            lane: Lane::Bulk(chunk.id.0 as u64),
        };
        let mut source =
            WithSeal { inner: chunk_source(self.bytes.clone(), client.inner.hashing), seal: None };
        let config = SenderConfig {
            window: client.inner.sender.window.min(ready.window.max(1)),
            ..client.inner.sender
        };
        let on_progress = |offset| {
            let before = reported.fetch_max(offset, Ordering::Relaxed);
            if let (Some(progress), true) = (&self.progress, offset > before) {
                progress(offset - before);
            }
        };
        let random = client.inner.random.as_ref();
        let sent = send_chunk(&link, session, &mut source, &config, random, on_progress).await;
        let Outcome { receipts, dropped } = sent.map_err(|error| {
            let attempt = failed(error.code(), error.to_string());
            // No node caused this, and no other can help.
            let is_of_source = matches!(error, dfs_streamer::Error::Source(_));
            Attempt { is_final: attempt.is_final || is_of_source, ..attempt }
        })?;
        for replica in &dropped {
            tracing::warn!(chunk = %chunk.id, node = %replica.node, why = %replica.message, "a replica was dropped");
        }
        let seal = source.seal;
        let enough = receipts.len() >= self.min_replicas as usize;
        match seal {
            Some(seal) if enough => {
                let (bytes, replicas) = (seal.length, receipts.len());
                tracing::debug!(chunk = %chunk.id, bytes, replicas, "a chunk is durable");
                Ok(WrittenChunk { planned: chunk.clone(), seal, receipts })
            }
            _ => {
                let message =
                    format!("{} of {} replicas were made", receipts.len(), self.min_replicas);
                Err(failed(ErrorCode::NotEnoughNodes, message))
            }
        }
    }

    /// Opens the session at the primary. Waits for a while when the node is busy.
    async fn prepare(&self, chunk: &PlannedChunk) -> Result<v1::ChunkUploadReady, Failure> {
        let client = &self.client;
        let meta = v1::ChunkMeta {
            cluster_id: Bytes::new(),
            chunk_id: chunk.id.to_wire(),
            max_length: chunk
                .max_length
                .min(self.bytes.length().next_multiple_of(BLOCK_SIZE as u64)),
            inode: self.inode,
            path: self.path.to_bytes(),
            file_offset: chunk.file_offset,
            token: chunk.token.clone(),
            replicas: chunk.nodes[1..].iter().map(|node| node.wire.clone()).collect(),
            is_replica: false,
            min_replicas: self.min_replicas,
            node_id: chunk.nodes[0].id.to_wire(),
            part: u32::from(Part::WHOLE.0),
        };
        let started = Instant::now();
        let send = |channel| {
            let meta = meta.clone();
            async move { DataNodeClient::new(channel).prepare_chunk_upload(meta).await }
        };
        loop {
            let node = &chunk.nodes[0];
            let failure = match client.at_node(node, Lane::Control, PREPARE_WITHIN, send).await {
                Ok(ready) => return Ok(ready.into_inner()),
                Err(failure) => failure,
            };
            if failure.code != ErrorCode::Busy || started.elapsed() > BUSY_WITHIN {
                return Err(failure);
            }
            client.pause_of_busy(&failure).await;
        }
    }
}

impl Client {
    /// Waits for as long as the busy node asked.
    async fn pause_of_busy(&self, failure: &Failure) {
        let pause = failure.retry_after.unwrap_or(Duration::from_millis(50));
        sleep(jittered(pause, self.inner.random.as_ref())).await;
    }
}

/// A link to the session of a datanode, by whichever route is available each time.
struct NodeLink {
    client: Client,
    node: Node,
    lane: Lane,
}

#[async_trait]
impl Link for NodeLink {
    async fn attach(
        &self,
        session: SessionId,
        attach_number: u64,
    ) -> Result<Attachment, dfs_streamer::Error> {
        let attach = |channel| grpc::attach(channel, session, attach_number);
        let started = Instant::now();
        loop {
            let attached = self.client.at_node(&self.node, self.lane, ATTACH_WITHIN, attach).await;
            let failure = match attached {
                Ok(attachment) => return Ok(attachment),
                Err(failure) => failure,
            };
            // The node has room for the session; a relaying coordinator may have none.
            if failure.code != ErrorCode::Busy || started.elapsed() > ATTACH_WITHIN {
                return Err(failure.into());
            }
            self.client.pause_of_busy(&failure).await;
        }
    }
}

/// Remembers the seal that passed with the last frame.
struct WithSeal<S> {
    inner: S,
    seal: Option<ChunkSeal>,
}

#[async_trait]
impl<S: FrameSource> FrameSource for WithSeal<S> {
    async fn next(&mut self) -> Result<Option<Frame>, dfs_streamer::Error> {
        let frame = self.inner.next().await?;
        if let Some(seal) = frame.as_ref().and_then(|frame| frame.seal) {
            self.seal = Some(seal);
        }
        Ok(frame)
    }

    fn rewind(&mut self, offset: u64) -> Result<(), dfs_streamer::Error> {
        self.inner.rewind(offset)
    }

    fn acknowledge(&mut self, offset: u64) {
        self.inner.acknowledge(offset);
    }
}

//! Pulls a chunk from the nodes that hold it: each block from the first source that has it, so that
//! replicas with different bad blocks make a good one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_chunkstore::{Blocks, SealedChunk};
use dfs_proto::bulk::{self, Incoming};
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Detail, Failure, v1};
use dfs_streamer::Dropped;
use dfs_transport::spawn_in_request;
use dfs_types::{
    BLOCK_SIZE, ChunkId, ChunkSeal, ClusterId, DfsPath, ErrorCode, Frame, FrameError, NodeId,
    ReplicaRef, Sha256Hasher,
};
use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::time::timeout;

use super::progress::Progress;
use crate::node::Node;

/// Time limit for the next frame of a source, including its time in the source's queue.
pub(super) const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// Time limit for a source to accept a report of a corrupt block.
const REPORT_WITHIN: Duration = Duration::from_secs(3);

/// A chunk being pulled. Each frame is verified before it is forwarded, and the chunk as a whole
/// before its last frame is.
pub(super) struct Pull {
    node: Arc<Node>,
    cluster: ClusterId,
    chunk: ChunkId,
    seal: ChunkSeal,
    /// Sources to try next, in this order.
    sources: VecDeque<Candidate>,
    current: Option<Open>,
    failed: Failed,
    progress: Progress,
    /// End of the bytes received.
    offset: u64,
    hasher: Sha256Hasher,
}

/// A replica to pull from.
#[derive(Clone)]
pub(super) enum Source {
    /// On another node.
    Remote {
        /// The node.
        node: NodeId,
        /// Address of the node.
        address: String,
        /// The replica.
        replica: ReplicaRef,
    },
    /// On this node.
    Local(SealedChunk),
}

struct Candidate {
    source: Source,
    /// Offset at which it could not provide a block.
    stuck_at: Option<u64>,
}

/// A source that replied.
struct Open {
    source: Source,
    /// `None` for a local one.
    frames: Option<Incoming<v1::ChunkFrame>>,
    /// Origin of the chunk, until a frame has brought it.
    origin: v1::ChunkOrigin,
}

/// Result of a pull.
pub(super) struct Pulled {
    pub(super) origin: v1::ChunkOrigin,
    /// The frames, up to the end of the chunk or an error.
    pub(super) frames: BoxStream<'static, Result<Frame, dfs_streamer::Error>>,
}

/// Sources that have failed so far, each with its first failure.
#[derive(Clone, Default)]
pub(super) struct Failed(Arc<Mutex<Vec<Dropped>>>);

impl Failed {
    pub(super) fn take(&self) -> Vec<Dropped> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, node: NodeId, failure: Failure) {
        let Failure { code, message, .. } = failure;
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.iter().all(|known| known.node != node) {
            failed.push(Dropped { node, code, message });
        }
    }
}

impl Pull {
    /// Creates a pull that tries the sources in this order. One that fails at a block is tried again
    /// after it, one that fails otherwise is not.
    pub(super) fn new(
        node: Arc<Node>,
        cluster: ClusterId,
        (chunk, seal): (ChunkId, ChunkSeal),
        sources: Vec<Source>,
        progress: Progress,
    ) -> (Self, Failed) {
        let failed = Failed::default();
        let candidate = |source| Candidate { source, stuck_at: None };
        let pull = Self {
            node,
            cluster,
            chunk,
            seal,
            sources: sources.into_iter().map(candidate).collect(),
            current: None,
            failed: failed.clone(),
            progress,
            offset: 0,
            hasher: Sha256Hasher::new(),
        };
        (pull, failed)
    }

    /// Waits for the first frame; `None` if no source has one.
    pub(super) async fn start(mut self) -> Option<Pulled> {
        let (first, origin) = self.next().await.ok()?;
        let first = stream::iter([Ok(first)]);
        Some(Pulled { origin, frames: first.chain(self.rest()).boxed() })
    }

    /// Returns the frames after the first.
    fn rest(self) -> impl Stream<Item = Result<Frame, dfs_streamer::Error>> + Send {
        stream::unfold(Some(self), |pull| async move {
            let mut pull = pull.filter(|pull| pull.offset < pull.seal.length)?;
            match pull.next().await {
                Ok((frame, _)) => Some((Ok(frame), Some(pull))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Returns the next frame, from any source that has it.
    async fn next(&mut self) -> Result<(Frame, v1::ChunkOrigin), dfs_streamer::Error> {
        loop {
            let mut open = if let Some(open) = self.current.take() {
                open
            } else {
                let message = "the sources together do not have the complete chunk";
                let none = || dfs_streamer::Error::Source(message.to_owned());
                self.open_next().await.ok_or_else(none)?
            };
            let failure = match self.receive(&mut open).await {
                Ok((frame, origin)) => match self.take_good(frame).await {
                    Ok((Some(frame), None)) => {
                        self.current = Some(open);
                        return Ok((frame, origin));
                    }
                    Ok((good, bad)) => {
                        if let Some(failure) = bad {
                            self.failed_at(&open.source, failure);
                        }
                        let Some(frame) = good else { continue };
                        return Ok((frame, origin));
                    }
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            self.failed_at(&open.source, failure);
        }
    }

    /// Notes a failure of a source at the current offset.
    fn failed_at(&mut self, source: &Source, failure: Failure) {
        let (chunk, id) = (self.chunk, self.node_of(source));
        self.progress.note();
        tracing::info!(%chunk, source = %id, %failure, "a source of a chunk failed");
        if matches!(failure.detail, Some(Detail::BadBlock(_))) {
            self.sources
                .push_back(Candidate { source: source.clone(), stuck_at: Some(self.offset) });
            if let (ErrorCode::ChecksumMismatch, Some(Detail::BadBlock(block))) =
                (failure.code, failure.detail)
            {
                self.report(source, block);
            }
        }
        self.failed.push(id, failure);
    }

    fn node_of(&self, source: &Source) -> NodeId {
        match source {
            Source::Remote { node, .. } => *node,
            Source::Local(_) => self.node.id,
        }
    }

    /// Opens the next source that may have the next block; `None` if there is none.
    async fn open_next(&mut self) -> Option<Open> {
        loop {
            let Candidate { source, stuck_at } = self.sources.pop_front()?;
            // All others were tried after it, at the same block.
            if stuck_at == Some(self.offset) {
                return None;
            }
            match self.open(&source).await {
                Ok(open) => return Some(open),
                Err(failure) => self.failed_at(&source, failure),
            }
        }
    }

    async fn open(&mut self, source: &Source) -> Result<Open, Failure> {
        let (node, address, replica) = match source {
            Source::Remote { node, address, replica } => (node, address, replica),
            Source::Local(replica) => {
                // Only the first frame of a pull needs it.
                let origin =
                    if self.offset == 0 { self.node.origin(*replica).await? } else { None };
                let origin = origin.unwrap_or_default();
                return Ok(Open { source: source.clone(), frames: None, origin });
            }
        };
        let channel = self.node.channels.bulk(address, self.chunk.0 as u64);
        let channel =
            channel.map_err(|error| Failure::new(ErrorCode::InvalidArgument, error.to_string()))?;
        let request = v1::RetrieveRequest {
            cluster_id: self.cluster.to_wire(),
            replica: Some((*replica).into()),
            offset: self.offset,
            node_id: node.to_wire(),
            for_build: true,
            ..v1::RetrieveRequest::default()
        };
        let frames = timeout(FRAME_WITHIN, bulk::retrieve_chunk(channel, request)).await;
        let frames = frames.map_err(|_| too_slow())?;
        let frames = frames.map_err(|status| Failure::from_status(&status))?;
        let (source, origin) = (source.clone(), v1::ChunkOrigin::default());
        Ok(Open { source, frames: Some(frames), origin })
    }

    /// Receives the next frame of a source, not verified yet.
    async fn receive(&mut self, open: &mut Open) -> Result<(Frame, v1::ChunkOrigin), Failure> {
        let Some(frames) = &mut open.frames else {
            let origin = std::mem::take(&mut open.origin);
            return Ok((self.read_local(&open.source).await?, origin));
        };
        let wrong = |what: String| Failure::new(ErrorCode::Internal, what);
        let frame = timeout(FRAME_WITHIN, frames.message()).await.map_err(|_| too_slow())?;
        let frame = frame.map_err(|status| Failure::from_status(&status))?;
        let mut frame = frame.ok_or_else(|| wrong("its reply ended early".to_owned()))?;
        let origin = frame.origin.take().unwrap_or_default();
        if origin.path.len() > DfsPath::MAX_LEN {
            return Err(wrong("the path of the chunk's origin is too long".to_owned()));
        }
        let mut frame = wire::frame("frame", frame).map_err(|error| wrong(error.to_string()))?;
        if frame.offset != self.offset || frame.data.is_empty() {
            return Err(wrong(format!("expected offset {}, got {}", self.offset, frame.offset)));
        }
        let is_last = frame.end() >= self.seal.length;
        // The sha256 is compared with that of the bytes.
        let of = |seal: ChunkSeal| (seal.length, seal.crc32c);
        if frame.seal.map(of) != is_last.then_some(of(self.seal)) {
            let what = "its replica differs from the bytes written to the chunk";
            return Err(Failure::new(ErrorCode::ChecksumMismatch, what));
        }
        frame.seal = is_last.then_some(self.seal);
        Ok((frame, origin))
    }

    async fn read_local(&mut self, source: &Source) -> Result<Frame, Failure> {
        let Source::Local(replica) = source else {
            return Err(Failure::new(ErrorCode::Internal, "a remote source without a stream"));
        };
        let blocks = self.node.read(*replica, self.offset, self.seal.length).await?;
        let Blocks { offset, data, crcs, .. } = blocks;
        let is_last = offset + data.len() as u64 == self.seal.length;
        Ok(Frame { offset, data, crcs, seal: is_last.then_some(self.seal) })
    }

    /// Verifies a frame, and takes the blocks before the first bad one. Returns them, if any, and
    /// the failure of the source.
    async fn take_good(
        &mut self,
        mut frame: Frame,
    ) -> Result<(Option<Frame>, Option<Failure>), Failure> {
        let wrong = |what: String| Failure::new(ErrorCode::Internal, what);
        self.progress.note();
        self.node.movement.take(frame.data.len() as u64).await;
        self.progress.note();
        let mut hasher = self.hasher.clone();
        let verified = self.node.pool.run(move || {
            let bad = match frame.verify() {
                Ok(()) => None,
                Err(FrameError::ChecksumMismatch(block)) => {
                    let good = (block - frame.offset / BLOCK_SIZE as u64) as usize;
                    frame.data.truncate(good * BLOCK_SIZE);
                    frame.crcs.truncate(good);
                    frame.seal = None;
                    Some(block)
                }
                Err(error) => return Err(error),
            };
            hasher.update(&frame.data);
            Ok((frame, hasher, bad))
        });
        let verified = verified.await.map_err(|error| wrong(error.to_string()))?;
        let (frame, hasher, bad) = verified.map_err(|error| wrong(error.to_string()))?;
        if frame.seal.is_some() && hasher.clone().finish() != self.seal.sha256 {
            let what = "the chunk as a whole does not match its sha256";
            return Err(Failure::new(ErrorCode::ChecksumMismatch, what));
        }
        let failure = bad.map(|block| {
            let what = format!("block {block} does not match its checksum");
            Failure::new(ErrorCode::ChecksumMismatch, what).detail(Detail::BadBlock(block))
        });
        if frame.data.is_empty() {
            return Ok((None, failure));
        }
        (self.offset, self.hasher) = (frame.end(), hasher);
        Ok((Some(frame), failure))
    }

    /// Reports a bad block to the source that served it. Best effort: scrub finds it too.
    fn report(&self, source: &Source, block: u64) {
        let Source::Remote { node: id, address, replica } = source else { return };
        let (chunk, id) = (self.chunk, *id);
        let Ok(channel) = self.node.channels.control(address) else { return };
        let report =
            v1::CorruptReport { replica: Some((*replica).into()), block, node_id: id.to_wire() };
        drop(spawn_in_request(async move {
            let call = async { DataNodeClient::new(channel).report_corrupt(report).await };
            if !matches!(timeout(REPORT_WITHIN, call).await, Ok(Ok(_))) {
                tracing::warn!(%chunk, source = %id, block, "reporting a corrupt block failed");
            }
        }));
    }
}

fn too_slow() -> Failure {
    Failure::new(ErrorCode::Unavailable, "no frame in time")
}

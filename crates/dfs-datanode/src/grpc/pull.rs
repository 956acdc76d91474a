//! Pulls a chunk from nodes that hold it, moving to the next when one fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::vec;

use dfs_proto::bulk::{self, Incoming};
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Failure, v1};
use dfs_streamer::Dropped;
use dfs_transport::spawn_in_request;
use dfs_types::{
    ChunkId, ChunkSeal, ClusterId, DfsPath, ErrorCode, Frame, FrameError, NodeId, ReplicaRef,
    Sha256Hasher,
};
use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::time::timeout;

use crate::node::Node;

/// Time limit for the next frame of a source, including its time in the source's queue.
const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// Time limit for a source to accept a report of a corrupt block.
const REPORT_WITHIN: Duration = Duration::from_secs(3);

/// A chunk being pulled. Each frame is verified before it is forwarded, and the chunk as a whole
/// before its last frame is.
pub(super) struct Pull {
    node: Arc<Node>,
    cluster: ClusterId,
    chunk: ChunkId,
    seal: ChunkSeal,
    /// Sources not tried yet.
    sources: vec::IntoIter<Source>,
    current: Option<Open>,
    failed: Failed,
    /// End of the bytes received.
    offset: u64,
    hasher: Sha256Hasher,
}

/// A replica on another node.
pub(super) struct Source {
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) replica: ReplicaRef,
}

/// A source that replied.
struct Open {
    source: Source,
    frames: Incoming<v1::ChunkFrame>,
}

/// Result of a pull.
pub(super) struct Pulled {
    pub(super) origin: v1::ChunkOrigin,
    /// The frames, up to the end of the chunk or an error.
    pub(super) frames: BoxStream<'static, Result<Frame, dfs_streamer::Error>>,
}

/// Sources that have failed so far.
#[derive(Clone, Default)]
pub(super) struct Failed(Arc<Mutex<Vec<Dropped>>>);

impl Failed {
    pub(super) fn take(&self) -> Vec<Dropped> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, node: NodeId, failure: Failure) {
        let Failure { code, message, .. } = failure;
        let dropped = Dropped { node, code, message };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(dropped);
    }
}

impl Pull {
    /// Creates a pull that tries the sources in this order, each once.
    pub(super) fn new(
        node: Arc<Node>,
        cluster: ClusterId,
        chunk: ChunkId,
        seal: ChunkSeal,
        sources: Vec<Source>,
    ) -> (Self, Failed) {
        let failed = Failed::default();
        let pull = Self {
            node,
            cluster,
            chunk,
            seal,
            sources: sources.into_iter(),
            current: None,
            failed: failed.clone(),
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
            if self.current.is_none() && !self.open_next().await {
                let message = "no source has the complete chunk".to_owned();
                return Err(dfs_streamer::Error::Source(message));
            }
            let Some(mut open) = self.current.take() else { continue };
            match self.read(&mut open).await {
                Ok(next) => {
                    self.current = Some(open);
                    return Ok(next);
                }
                Err(failure) => {
                    let (chunk, id) = (self.chunk, open.source.node);
                    tracing::info!(%chunk, source = %id, %failure, "a source of a chunk failed");
                    self.failed.push(id, failure);
                }
            }
        }
    }

    /// Opens the next source. Returns false if there is none.
    async fn open_next(&mut self) -> bool {
        let Some(source) = self.sources.next() else { return false };
        match self.open(&source).await {
            Ok(frames) => self.current = Some(Open { source, frames }),
            Err(failure) => self.failed.push(source.node, failure),
        }
        true
    }

    async fn open(&mut self, source: &Source) -> Result<Incoming<v1::ChunkFrame>, Failure> {
        let channel = self.node.channels.bulk(&source.address, self.chunk.0 as u64);
        let channel =
            channel.map_err(|error| Failure::new(ErrorCode::InvalidArgument, error.to_string()))?;
        let request = v1::RetrieveRequest {
            cluster_id: self.cluster.to_wire(),
            replica: Some(source.replica.into()),
            offset: self.offset,
            node_id: source.node.to_wire(),
            for_build: true,
            ..v1::RetrieveRequest::default()
        };
        let frames = timeout(FRAME_WITHIN, bulk::retrieve_chunk(channel, request)).await;
        frames.map_err(|_| too_slow())?.map_err(|status| Failure::from_status(&status))
    }

    /// Reads and verifies a frame. A code NOT_FOUND or CORRUPT is the source's own verdict.
    async fn read(&mut self, open: &mut Open) -> Result<(Frame, v1::ChunkOrigin), Failure> {
        let wrong = |what: String| Failure::new(ErrorCode::Internal, what);
        let mismatch = |what: &str| Failure::new(ErrorCode::ChecksumMismatch, what);
        let frame = timeout(FRAME_WITHIN, open.frames.message()).await.map_err(|_| too_slow())?;
        let frame = frame.map_err(|status| Failure::from_status(&status))?;
        let mut frame = frame.ok_or_else(|| wrong("its reply ended early".to_owned()))?;
        let origin = frame.origin.take().unwrap_or_default();
        if origin.path.len() > DfsPath::MAX_LEN {
            return Err(wrong("the path of the chunk's origin is too long".to_owned()));
        }
        let frame = wire::frame("frame", frame).map_err(|error| wrong(error.to_string()))?;
        if frame.offset != self.offset || frame.data.is_empty() {
            return Err(wrong(format!("expected offset {}, got {}", self.offset, frame.offset)));
        }
        let is_last = frame.end() >= self.seal.length;
        if frame.seal != is_last.then_some(self.seal) {
            return Err(mismatch("its replica differs from the bytes written to the chunk"));
        }
        self.node.movement.take(frame.data.len() as u64).await;
        let mut hasher = self.hasher.clone();
        let verified = self.node.pool.run(move || {
            frame.verify()?;
            hasher.update(&frame.data);
            Ok((frame, hasher))
        });
        match verified.await.map_err(|error| wrong(error.to_string()))? {
            Ok((frame, hasher)) => {
                if is_last && hasher.clone().finish() != self.seal.sha256 {
                    return Err(mismatch("the chunk as a whole does not match its sha256"));
                }
                (self.offset, self.hasher) = (frame.end(), hasher);
                Ok((frame, origin))
            }
            Err(FrameError::ChecksumMismatch(block)) => {
                self.report(&open.source, block);
                Err(mismatch(&format!("block {block} does not match its checksum")))
            }
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Reports a bad block to the source that served it. Best effort: scrub finds it too.
    fn report(&self, source: &Source, block: u64) {
        let (chunk, id) = (self.chunk, source.node);
        let Ok(channel) = self.node.channels.control(&source.address) else { return };
        let report = v1::CorruptReport {
            replica: Some(source.replica.into()),
            block,
            node_id: id.to_wire(),
        };
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

//! One piece of a chunk, from whichever copy gives it: hedged, failed over, verified.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{FRAME_MESSAGE_LEN_MAX, Failure, v1};
use dfs_types::{BLOCK_SIZE, ChunkId, ErrorCode, FrameError, InodeId, NodeId};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::call::jittered;
use crate::layout::{Extent, refreshed};
use crate::stats::count;
use crate::upload::Node;
use crate::{Client, Error};

/// How long a datanode may take for the next frame.
const FRAME_WITHIN: Duration = Duration::from_secs(5);
/// How long a node that failed is asked last.
const PENALTY: Duration = Duration::from_secs(10);
/// Nodes whose failures are remembered.
const PENALTIES_MAX: usize = 1_024;
/// Bounds of the time after which a second copy is asked as well.
const HEDGE_MIN: Duration = Duration::from_millis(50);
const HEDGE_MAX: Duration = Duration::from_secs(2);
const HEDGE_FIRST: Duration = Duration::from_millis(300);
/// The first pause before all copies are tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a report of a bad block may take.
const REPORT_WITHIN: Duration = Duration::from_secs(2);

/// What is known of how nodes answered lately.
#[derive(Debug, Default)]
pub(crate) struct Penalties(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    failed: BTreeMap<NodeId, Instant>,
    /// What a piece took lately, smoothed; `None` before the first.
    usual: Option<Duration>,
}

impl Penalties {
    /// A node has failed: others are asked first for a while.
    pub(crate) fn add(&self, node: NodeId) {
        let now = Instant::now();
        let mut known = self.lock();
        known.failed.retain(|_, at| now.duration_since(*at) < PENALTY);
        if known.failed.len() < PENALTIES_MAX {
            known.failed.insert(node, now);
        }
    }

    fn has(&self, node: NodeId) -> bool {
        self.lock().failed.get(&node).is_some_and(|at| at.elapsed() < PENALTY)
    }

    fn took(&self, time: Duration) {
        let mut known = self.lock();
        known.usual = Some(known.usual.map_or(time, |usual| (usual * 7 + time) / 8));
    }

    /// After which time a second copy is asked as well: several times what a piece usually takes.
    fn hedge_after(&self) -> Duration {
        let usual = self.lock().usual;
        usual.map_or(HEDGE_FIRST, |usual| usual * 6).clamp(HEDGE_MIN, HEDGE_MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run of bytes within one extent.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) extent: Arc<Extent>,
    /// From the start of the extent.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Piece {
    /// Bytes of a piece at most.
    pub(crate) const MAX: u64 = 4 << 20;

    /// Where it starts in the file.
    pub(crate) fn file_offset(&self) -> u64 {
        self.extent.file_offset + self.offset
    }
}

/// Why a copy did not give a piece.
#[derive(Debug)]
enum Trouble {
    Failed(Failure),
    /// A block does not have its checksum.
    Corrupt(u64),
}

impl Trouble {
    /// Whether the same copy will give the same trouble again.
    fn is_final(&self) -> bool {
        match self {
            Self::Corrupt(_) => true,
            Self::Failed(failure) => {
                let code = failure.code;
                !code.is_retryable() && !code.is_outcome_unknown() && code != ErrorCode::NotFound
            }
        }
    }
}

impl Client {
    /// Fetches a piece of an open file. Tries every copy, asks anew who holds some, and goes on
    /// until the deadline of the client.
    pub(crate) async fn fetch(
        &self,
        context: &str,
        inode: InodeId,
        piece: Piece,
    ) -> Result<Bytes, Error> {
        let started = Instant::now();
        let mut piece = piece;
        let mut pause = PAUSE_MIN;
        loop {
            let troubles = match self.fetch_once(&piece).await {
                Ok(bytes) => return Ok(bytes),
                Err(troubles) => troubles,
            };
            let wait = jittered(pause, self.inner.random.as_ref());
            if started.elapsed() + wait >= self.inner.deadline {
                return Err(no_copy(context, &piece.extent, &troubles));
            }
            let are_final =
                !troubles.is_empty() && troubles.iter().all(|(_, trouble)| trouble.is_final());
            if !are_final {
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            count(&self.inner.counters.retries);
            let extent = refreshed(self, context, inode, &piece.extent).await?;
            let tried = |node: &Node| troubles.iter().any(|(tried, _)| *tried == node.id);
            if are_final && extent.sources().all(tried) {
                return Err(no_copy(context, &piece.extent, &troubles));
            }
            piece.extent = Arc::new(extent);
        }
    }

    /// Tries each copy once, the next one when one fails or is slow.
    async fn fetch_once(&self, piece: &Piece) -> Result<Bytes, Vec<(NodeId, Trouble)>> {
        let mut waiting = self.in_order(piece.extent.sources()).into_iter();
        let mut running = JoinSet::new();
        let mut troubles = Vec::new();
        let mut hedges_left = 1;
        let started = Instant::now();
        let mut start = |running: &mut JoinSet<_>| -> bool {
            let Some(node) = waiting.next() else { return false };
            let (client, piece) = (self.clone(), piece.clone());
            let work = async move { (node.id, client.read_copy(&node, &piece).await) };
            match dfs_transport::current_request_id() {
                Some(id) => running.spawn(dfs_transport::with_request_id(id, work)),
                None => running.spawn(work),
            };
            true
        };
        start(&mut running);
        while !running.is_empty() {
            let hedge = tokio::time::sleep(self.inner.penalties.hedge_after());
            let ended = tokio::select! {
                biased;
                ended = running.join_next() => ended,
                () = hedge, if hedges_left > 0 => {
                    hedges_left -= 1;
                    if start(&mut running) {
                        count(&self.inner.counters.hedges);
                    }
                    continue;
                }
            };
            let Some(Ok((node, result))) = ended else { continue };
            match result {
                Ok(bytes) => {
                    self.inner.penalties.took(started.elapsed());
                    return Ok(bytes);
                }
                Err(trouble) => {
                    self.note(piece.extent.chunk, node, &trouble);
                    troubles.push((node, trouble));
                    if start(&mut running) {
                        count(&self.inner.counters.failovers);
                    }
                }
            }
        }
        Err(troubles)
    }

    fn note(&self, chunk: ChunkId, node: NodeId, trouble: &Trouble) {
        match trouble {
            Trouble::Corrupt(block) => {
                count(&self.inner.counters.corrupt_blocks);
                tracing::warn!(%chunk, %node, block, "a block is corrupt; reading another copy");
            }
            Trouble::Failed(failure) => {
                // A node that does not have the chunk is not a bad node.
                if failure.code != ErrorCode::NotFound {
                    self.inner.penalties.add(node);
                }
                tracing::debug!(%chunk, %node, %failure, "reading another copy");
            }
        }
    }

    /// The nearest first: same machine, then same zone, then by chance; who failed lately last.
    fn in_order<'a>(&self, nodes: impl Iterator<Item = &'a Node>) -> Vec<Node> {
        let inner = &self.inner;
        let mut nodes: Vec<_> = nodes
            .map(|node| {
                let is_here = !inner.host.is_empty() && node.host == inner.host;
                let is_near = !inner.zone.is_empty() && node.zone == inner.zone;
                let has_failed = inner.penalties.has(node.id);
                ((has_failed, !is_here, !is_near, inner.random.below(1 << 32)), node.clone())
            })
            .collect();
        nodes.sort_by_key(|(rank, _)| *rank);
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    /// Reads a piece from one copy, and verifies every block of it.
    async fn read_copy(&self, node: &Node, piece: &Piece) -> Result<Bytes, Trouble> {
        let offset = piece.extent.chunk_offset + piece.offset;
        let (chunk, length) = (piece.extent.chunk, piece.length);
        let read = self.read_blocks(node, chunk, offset, length).await;
        if let Err(Trouble::Corrupt(block)) = read {
            let (client, node) = (self.clone(), node.clone());
            drop(tokio::spawn(async move { client.report_corrupt(&node, chunk, block).await }));
        }
        read
    }

    pub(crate) async fn verify_copy(
        &self,
        node: &Node,
        chunk: ChunkId,
        length: u64,
    ) -> Result<(), String> {
        let mut offset = 0;
        while offset < length {
            let step = Piece::MAX.min(length - offset);
            let _permit = self.budget(step).await;
            match self.read_blocks(node, chunk, offset, step).await {
                Ok(_) => offset += step,
                Err(Trouble::Corrupt(block)) => {
                    self.report_corrupt(node, chunk, block).await;
                    return Err(format!("block {block} is corrupt"));
                }
                Err(Trouble::Failed(failure)) => return Err(failure.message),
            }
        }
        Ok(())
    }

    async fn read_blocks(
        &self,
        node: &Node,
        chunk: ChunkId,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, Trouble> {
        let failed = |failure: Failure| {
            let message = format!("node {} at {}: {}", node.id, node.address, failure.message);
            Trouble::Failed(Failure { message, ..failure })
        };
        let of_status = |status: tonic::Status| failed(Failure::from_status(&status));
        let slow = || failed(Failure::new(ErrorCode::Unavailable, "no answer in time"));
        let wrong = |what: String| failed(Failure::new(ErrorCode::Internal, what));
        let channel = self.inner.channels.bulk(&node.address, chunk.0 as u64);
        let channel = channel.map_err(|error| wrong(error.to_string()))?;
        let mut client =
            DataNodeClient::new(channel).max_decoding_message_size(FRAME_MESSAGE_LEN_MAX);
        let request = v1::RetrieveRequest {
            chunk_id: chunk.to_wire(),
            offset,
            length,
            ..v1::RetrieveRequest::default()
        };
        let answer = timeout(FRAME_WITHIN, client.retrieve_chunk(request)).await;
        let mut frames = answer.map_err(|_| slow())?.map_err(of_status)?.into_inner();
        let block = BLOCK_SIZE as u64;
        let first = offset / block * block;
        let mut next = first;
        let mut bytes = BytesMut::with_capacity((length + block) as usize);
        while next < offset + length {
            let frame = timeout(FRAME_WITHIN, frames.message()).await.map_err(|_| slow())?;
            let frame = frame.map_err(of_status)?;
            let frame = frame.ok_or_else(|| wrong("the answer ended early".to_owned()))?;
            let frame = wire::frame("frame", frame).map_err(|error| wrong(error.to_string()))?;
            match frame.verify() {
                Ok(()) => {}
                Err(FrameError::ChecksumMismatch(block)) => return Err(Trouble::Corrupt(block)),
                Err(error) => return Err(wrong(error.to_string())),
            }
            if frame.offset != next || frame.data.is_empty() {
                return Err(wrong(format!("bytes from {next} were due, not {}", frame.offset)));
            }
            if frame.end() > offset + length + block {
                return Err(wrong("more bytes than were asked for".to_owned()));
            }
            next = frame.end();
            bytes.extend_from_slice(&frame.data);
        }
        let start = (offset - first) as usize;
        Ok(bytes.freeze().slice(start..start + length as usize))
    }

    /// Tells a node of a block that it served wrong. Best effort: scrub finds it as well.
    async fn report_corrupt(&self, node: &Node, chunk: ChunkId, block: u64) {
        let Ok(channel) = self.inner.channels.control(&node.address) else { return };
        let report = v1::CorruptReport { chunk_id: chunk.to_wire(), block };
        let reporting = async { DataNodeClient::new(channel).report_corrupt(report).await };
        if timeout(REPORT_WITHIN, reporting).await.is_err() {
            tracing::warn!(%chunk, node = %node.id, block, "the node does not take the report");
        }
    }
}

fn no_copy(context: &str, extent: &Extent, troubles: &[(NodeId, Trouble)]) -> Error {
    let chunk = extent.chunk;
    if troubles.is_empty() {
        let message = format!(
            "no reachable node holds chunk {chunk} ({} copies are known); see `dfs explain`",
            extent.copies.len()
        );
        return Error::new(ErrorCode::Unavailable, context, message);
    }
    let is_corrupt = |trouble: &Trouble| matches!(trouble, Trouble::Corrupt(_));
    let all_corrupt = troubles.iter().all(|(_, trouble)| is_corrupt(trouble));
    let told: Vec<String> = troubles
        .iter()
        .map(|(node, trouble)| match trouble {
            Trouble::Corrupt(block) => format!("node {node}: block {block} is corrupt"),
            Trouble::Failed(failure) => failure.message.clone(),
        })
        .collect();
    let code = if all_corrupt { ErrorCode::Corrupt } else { ErrorCode::Unavailable };
    let message = format!("no copy of chunk {chunk} can be read: {}", told.join("; "));
    Error::new(code, context, message)
}

//! Reads and verifies one replica of a chunk, and reports a bad one to its node.

use std::time::Duration;

use bytes::Bytes;
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Detail, Failure, bulk, v1};
use dfs_transport::Lane;
use dfs_types::{BLOCK_SIZE, Crc32c, ErrorCode, Frame, FrameError};
use tokio::time::timeout;

use crate::Client;
use crate::chunk_checksum::is_of_chunk;
use crate::layout::{Extent, Source};
use crate::pieces::Piece;

/// Time limit of a datanode for the next frame.
const FRAME_WITHIN: Duration = Duration::from_secs(5);
/// Time limit of a bad block report.
const REPORT_WITHIN: Duration = Duration::from_secs(2);

/// Why reading a replica failed.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The node did not return it.
    Failed(Failure),
    /// This block does not match its checksum.
    Corrupt(u64),
    /// Each block matches the checksum that the node sent, but together they are not this chunk.
    OtherChunk,
}

const BLOCK: u64 = BLOCK_SIZE as u64;

/// A verified range of a chunk.
#[derive(Debug)]
pub(crate) struct Run {
    /// The bytes, in the pieces in which they arrived: concatenating them would cost a copy.
    pub(crate) bytes: Vec<Bytes>,
    /// Checksum of the range, if it consists of whole blocks.
    pub(crate) crc: Option<Crc32c>,
    /// Start in the chunk.
    start: u64,
    /// End in the chunk.
    end: u64,
}

impl Run {
    /// Creates an empty run that begins at this offset in the chunk.
    pub(crate) fn at(start: u64) -> Self {
        let crc = start.is_multiple_of(BLOCK).then(Crc32c::default);
        Self { bytes: Vec::new(), crc, start, end: start }
    }

    /// Returns its end in the chunk.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Appends the bytes of a verified frame up to `end`.
    fn push(&mut self, frame: &Frame, end: u64, extent: &Extent) {
        let skipped = self.end - frame.offset;
        let taken = end.min(frame.end()) - frame.offset;
        if taken <= skipped {
            return;
        }
        let is_whole = skipped == 0
            && taken == frame.data.len() as u64
            && (taken.is_multiple_of(BLOCK) || frame.end() == extent.seal.length);
        self.crc = self.crc.filter(|_| is_whole).and_then(|so_far| {
            let next = Crc32c::of_whole(&frame.crcs, frame.data.len() as u64)?;
            Some(so_far.combine(next, frame.data.len()))
        });
        self.bytes.push(frame.data.slice(skipped as usize..taken as usize));
        self.end = frame.offset + taken;
    }

    /// Checks a run of a whole chunk against the checksum of the chunk.
    pub(crate) fn check(&self, extent: &Extent) -> Result<(), ReadError> {
        let length = self.end - self.start;
        if is_of_chunk(&extent.seal, self.start, length, self.crc) {
            Ok(())
        } else {
            Err(ReadError::OtherChunk)
        }
    }
}

/// Returns the blocks of a frame before this one.
fn before(mut frame: Frame, block: u64) -> Frame {
    let blocks = (block - frame.offset / BLOCK) as usize;
    frame.data.truncate(blocks * BLOCK_SIZE);
    frame.crcs.truncate(blocks);
    frame
}

impl ReadError {
    /// Returns true if the replica is bad, by its content or according to its node.
    pub(crate) fn is_of_replica(&self) -> bool {
        match self {
            Self::Corrupt(_) | Self::OtherChunk => true,
            Self::Failed(failure) => failure.code == ErrorCode::Corrupt,
        }
    }

    /// Returns true if the node has no such replica.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.code == ErrorCode::NotFound)
    }

    /// Returns the block to report to the node, which then verifies the whole replica.
    pub(crate) fn bad_block(&self) -> Option<u64> {
        match self {
            Self::Corrupt(block) => Some(*block),
            Self::OtherChunk => Some(0),
            Self::Failed(_) => None,
        }
    }

    /// Returns true if only some blocks of the replica cannot be read.
    pub(crate) fn is_of_some_blocks(&self) -> bool {
        match self {
            Self::Corrupt(_) => true,
            Self::OtherChunk => false,
            Self::Failed(failure) => matches!(failure.detail, Some(Detail::BadBlock(_))),
        }
    }

    /// Returns true if a repeat at the same replica is useless.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Corrupt(_) | Self::OtherChunk => true,
            Self::Failed(failure) => {
                let code = failure.code;
                // A missing replica may have moved.
                !code.is_retryable() && !code.is_outcome_unknown() && code != ErrorCode::NotFound
            }
        }
    }
}

impl Client {
    /// Reads a complete replica, and verifies every block of it.
    pub(crate) async fn verify_replica(
        &self,
        source: &Source,
        extent: &Extent,
    ) -> Result<(), ReadError> {
        let verified = self.read_whole(source, extent).await;
        if let Some(block) = verified.as_ref().err().and_then(ReadError::bad_block) {
            self.report_corrupt(source, block).await;
        }
        verified
    }

    async fn read_whole(&self, source: &Source, extent: &Extent) -> Result<(), ReadError> {
        let (mut offset, mut whole) = (0, Crc32c::default());
        while offset < extent.seal.length {
            let step = Piece::MAX.min(extent.seal.length - offset);
            let _share = self.inner.budget.take(step).await;
            let run = self.read_replica(source, extent, offset, step).await?;
            whole = whole.combine(run.crc.ok_or(ReadError::OtherChunk)?, step as usize);
            offset += step;
        }
        if whole == extent.seal.crc32c { Ok(()) } else { Err(ReadError::OtherChunk) }
    }

    /// Reads a range of a replica, and verifies every block that it touches; the whole chunk is
    /// also checked against the checksum of the chunk.
    pub(crate) async fn read_replica(
        &self,
        source: &Source,
        extent: &Extent,
        offset: u64,
        length: u64,
    ) -> Result<Run, ReadError> {
        let mut run = Run::at(offset);
        self.read_into(&mut run, source, extent, offset + length).await?;
        run.check(extent)?;
        Ok(run)
    }

    /// Appends the blocks up to `end` to a run, from a replica. After an error the run has the
    /// blocks before the first one that this replica cannot provide.
    pub(crate) async fn read_into(
        &self,
        run: &mut Run,
        source: &Source,
        extent: &Extent,
        end: u64,
    ) -> Result<(), ReadError> {
        let node = &source.node;
        let failed = |failure: Failure| {
            let message = format!("node {} at {}: {}", node.id, node.address, failure.message);
            ReadError::Failed(Failure { message, ..failure })
        };
        let of_status = |status: tonic::Status| failed(Failure::from_status(&status));
        let slow = || failed(Failure::new(ErrorCode::Unavailable, "no reply in time"));
        let wrong = |what: String| failed(Failure::new(ErrorCode::Internal, what));
        let request = v1::RetrieveRequest {
            replica: Some(source.replica.into()),
            offset: run.end,
            length: end - run.end,
            node_id: node.id.to_wire(),
            ..v1::RetrieveRequest::default()
        };
        let retrieve = |channel| bulk::retrieve_chunk(channel, request.clone());
        let lane = Lane::Bulk(run.end / Piece::MAX);
        let answer = self.at_node(node, lane, FRAME_WITHIN, retrieve).await;
        let mut frames = answer.map_err(failed)?;
        while run.end < end {
            let frame = timeout(FRAME_WITHIN, frames.message()).await.map_err(|_| slow())?;
            let frame = frame.map_err(of_status)?;
            let frame = frame.ok_or_else(|| wrong("the reply ended early".to_owned()))?;
            let frame = wire::frame("frame", frame).map_err(|error| wrong(error.to_string()))?;
            let (next, verified) = (run.end / BLOCK * BLOCK, frame.verify());
            if frame.offset != next || frame.data.is_empty() {
                return Err(wrong(format!("expected bytes from {next}, got {}", frame.offset)));
            }
            if frame.end() > end.next_multiple_of(BLOCK) {
                return Err(wrong("more bytes than requested".to_owned()));
            }
            match verified {
                Ok(()) => run.push(&frame, end, extent),
                Err(FrameError::ChecksumMismatch(block)) => {
                    run.push(&before(frame, block), end, extent);
                    return Err(ReadError::Corrupt(block));
                }
                Err(error) => return Err(wrong(error.to_string())),
            }
        }
        // The end of the stream is read too: resetting a stream costs the connection.
        drop(timeout(FRAME_WITHIN, frames.message()).await);
        Ok(())
    }

    /// Reports a bad block to the node that served it. Best effort.
    pub(crate) async fn report_corrupt(&self, source: &Source, block: u64) {
        let (node, chunk) = (&source.node, source.replica.chunk);
        let replica = Some(source.replica.into());
        let report = v1::CorruptReport { replica, block, node_id: node.id.to_wire() };
        let send = |channel| {
            let report = report.clone();
            async move { DataNodeClient::new(channel).report_corrupt(report).await }
        };
        if self.at_node(node, Lane::Control, REPORT_WITHIN, send).await.is_err() {
            tracing::warn!(%chunk, node = %node.id, block, "reporting a bad block failed");
        }
    }
}

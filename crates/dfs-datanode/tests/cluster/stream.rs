//! The stream of a session, frame by frame, as no well-behaved sender would send it.

use bytes::Bytes;
use dfs_proto::bulk::{self, Incoming};
use dfs_proto::v1::chunk_ack::Kind;
use dfs_proto::v1::chunk_data;
use dfs_proto::{Failure, v1};
use dfs_transport::ClientChannel;
use dfs_types::{BLOCK_SIZE, ChunkSeal, Crc32c, ErrorCode, Frame, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::PATIENCE;

/// Returns frames of one block each.
pub(crate) fn frames(data: &[u8]) -> Vec<Frame> {
    let data = Bytes::copy_from_slice(data);
    let seal = ChunkSeal {
        length: data.len() as u64,
        crc32c: Crc32c::of(&data),
        sha256: Sha256::of(&data),
    };
    let starts = (0..data.len()).step_by(BLOCK_SIZE);
    let frame = |start: usize| {
        let end = data.len().min(start + BLOCK_SIZE);
        let seal = (end == data.len()).then_some(seal);
        Frame::of(start as u64, data.slice(start..end), seal)
    };
    starts.map(frame).collect()
}

/// A stream that is attached, or was refused.
pub(crate) struct Stream {
    data: mpsc::Sender<v1::ChunkData>,
    acks: Result<Incoming<v1::ChunkAck>, ErrorCode>,
}

impl Stream {
    pub(crate) async fn attach(
        channel: ClientChannel,
        session_id: Bytes,
        attach_number: u64,
    ) -> Self {
        let attach = v1::Attach { session_id, attach_number };
        Self::start(channel, v1::ChunkData { kind: Some(chunk_data::Kind::Attach(attach)) }).await
    }

    /// Starts a stream with any message.
    pub(crate) async fn start(channel: ClientChannel, first: v1::ChunkData) -> Self {
        let (data, outgoing) = mpsc::channel(64);
        data.send(first).await.unwrap();
        let call = bulk::chunk_data_stream(channel, ReceiverStream::new(outgoing));
        let acks = timeout(PATIENCE, call).await.expect("a reply");
        let acks = acks.map_err(|status| Failure::from_status(&status).code);
        Self { data, acks }
    }

    pub(crate) async fn send(&self, frame: impl Into<v1::ChunkFrame>) {
        self.send_data(chunk_data::Kind::Frame(frame.into())).await;
    }

    /// Sends a message; ignored once the stream was refused, which `end` reports.
    pub(crate) async fn send_data(&self, kind: chunk_data::Kind) {
        drop(self.data.send(v1::ChunkData { kind: Some(kind) }).await);
    }

    /// Returns the next ack; `None` at the end.
    pub(crate) async fn ack(&mut self) -> Result<Option<Kind>, ErrorCode> {
        let acks = self.acks.as_mut().map_err(|code| *code)?;
        let ack = timeout(PATIENCE, acks.message()).await.expect("an ack, or the end");
        let ack = ack.map_err(|status| Failure::from_status(&status).code)?;
        Ok(ack.and_then(|ack| ack.kind))
    }

    /// Returns the result of the stream.
    pub(crate) async fn end(&mut self) -> Result<Vec<v1::Receipt>, ErrorCode> {
        loop {
            match self.ack().await? {
                Some(Kind::Sealed(sealed)) => return Ok(sealed.receipts),
                Some(_) => {}
                None => panic!("the stream ended without a result"),
            }
        }
    }
}

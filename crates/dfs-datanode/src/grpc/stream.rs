//! Transfers the frames of a session.

use std::sync::Arc;
use std::time::Duration;

use dfs_proto::bulk::Incoming;
use dfs_proto::v1::chunk_data::Kind;
use dfs_proto::{Failure, FieldError, v1, wire};
use dfs_streamer::grpc::{ack_to_wire, frame_from_wire};
use dfs_types::ErrorCode;
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::Error;
use crate::node::Node;

/// Time limit for a sender to name its session.
const ATTACH_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn run(
    node: &Arc<Node>,
    mut data: Incoming<v1::ChunkData>,
) -> Result<impl Stream<Item = Result<v1::ChunkAck, Status>> + use<>, Status> {
    let late = || Failure::new(ErrorCode::Unavailable, "no session was named in time");
    let first = timeout(ATTACH_WITHIN, data.message()).await.map_err(|_| late())??;
    let Some(Kind::Attach(attach)) = first.and_then(|first| first.kind) else {
        let error = FieldError::new("kind", "the first message of a stream must be an attach");
        return Err(Error::from(error).into());
    };
    let id = wire::id("attach.session_id", &attach.session_id).map_err(Error::from)?;
    let session = node.sessions.find(id);
    let session = session.ok_or_else(|| Failure::from(dfs_streamer::Error::UnknownSession))?;
    let acks = session.attach(attach.attach_number, data.map(frame_from_wire));
    let node = node.clone();
    Ok(ReceiverStream::new(acks).map(move |ack| match ack {
        Ok(ack) => {
            if let dfs_streamer::Ack::Sealed(outcome) = &ack {
                node.counts.dropped_replicas.add(outcome.dropped.len() as u64);
            }
            Ok(ack_to_wire(ack))
        }
        Err(error) => {
            if error.code() == ErrorCode::ChecksumMismatch {
                node.counts.checksum_errors.increment();
            }
            tracing::info!(session = %id, %error, "a stream ended early");
            Err(Failure::from(error).into())
        }
    }))
}

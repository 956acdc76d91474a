//! Streams over gRPC: [`GrpcLink`] for the sender, conversions for the receiver.

use async_trait::async_trait;
use dfs_proto::v1::{self, chunk_ack, chunk_data};
use dfs_proto::{Failure, bulk, wire};
use dfs_transport::ClientChannel;
use dfs_types::{ErrorCode, Frame, SessionId};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::{Ack, Attachment, Dropped, Error, Link, Outcome};

/// Frames queued for the connection. More would only hide its speed from the window.
const FRAMES_AHEAD: usize = 1;

/// A link to the session of a datanode.
#[derive(Debug, Clone)]
pub struct GrpcLink {
    channel: ClientChannel,
}

impl GrpcLink {
    /// Creates a link over this channel.
    pub fn new(channel: ClientChannel) -> Self {
        Self { channel }
    }
}

#[async_trait]
impl Link for GrpcLink {
    async fn attach(&self, session: SessionId, attach_number: u64) -> Result<Attachment, Error> {
        let attached = attach(self.channel.clone(), session, attach_number).await;
        attached.map_err(|status| Failure::from_status(&status).into())
    }
}

/// Opens a stream that takes over a session; for links that choose the channel on each attempt.
pub async fn attach(
    channel: ClientChannel,
    session: SessionId,
    attach_number: u64,
) -> Result<Attachment, Status> {
    let (frames, outgoing) = mpsc::channel(FRAMES_AHEAD);
    let attach = v1::Attach { session_id: session.to_bytes().to_vec().into(), attach_number };
    let attach = v1::ChunkData { kind: Some(chunk_data::Kind::Attach(attach)) };
    let outgoing = ReceiverStream::new(outgoing)
        .map(|frame: Frame| v1::ChunkData { kind: Some(chunk_data::Kind::Frame(frame.into())) });
    let outgoing = futures_util::stream::iter([attach]).chain(outgoing);
    let acks = bulk::chunk_data_stream(channel, outgoing).await?.map(|ack| match ack {
        Ok(ack) => ack_from_wire(ack),
        Err(status) => Err(Failure::from_status(&status).into()),
    });
    Ok(Attachment { frames, acks: Box::pin(acks) })
}

/// Maps the failure of a stream: a broken connection can be resumed, a refusal cannot.
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.code {
            ErrorCode::Unavailable | ErrorCode::OutcomeUnknown => Self::Cut(failure.message),
            ErrorCode::Stale => Self::UnknownSession,
            code => Self::Refused { code, message: failure.message },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Decodes an ack.
pub fn ack_from_wire(ack: v1::ChunkAck) -> Result<Ack, Error> {
    let refused = |error: wire::FieldError| Error::Refused {
        code: ErrorCode::Internal,
        message: format!("malformed ack: {error}"),
    };
    Ok(match ack.kind {
        Some(chunk_ack::Kind::Attached(attached)) => {
            Ack::Attached { resume: attached.resume_offset }
        }
        Some(chunk_ack::Kind::Progress(progress)) => {
            Ack::Progress { received: progress.received_offset }
        }
        Some(chunk_ack::Kind::Sealed(sealed)) => {
            let receipts = sealed.receipts.into_iter().map(|r| wire::receipt("receipts", r));
            let receipts = receipts.collect::<Result<_, _>>().map_err(refused)?;
            let dropped = sealed.dropped.into_iter().map(dropped_from_wire);
            Ack::Sealed(Outcome {
                receipts,
                dropped: dropped.collect::<Result<_, _>>().map_err(refused)?,
            })
        }
        None => return Err(refused(wire::FieldError::new("kind", "is not set"))),
    })
}

/// Encodes an ack.
pub fn ack_to_wire(ack: Ack) -> v1::ChunkAck {
    let kind = match ack {
        Ack::Attached { resume } => {
            chunk_ack::Kind::Attached(v1::Attached { resume_offset: resume })
        }
        Ack::Progress { received } => chunk_ack::Kind::Progress(v1::Progress {
            received_offset: received,
            dropped: Vec::new(),
        }),
        Ack::Sealed(outcome) => chunk_ack::Kind::Sealed(v1::Sealed {
            receipts: outcome.receipts.into_iter().map(Into::into).collect(),
            dropped: outcome.dropped.into_iter().map(dropped_to_wire).collect(),
        }),
    };
    v1::ChunkAck { kind: Some(kind) }
}

/// Decodes a dropped replica. A code of a newer version counts as internal.
pub fn dropped_from_wire(dropped: v1::DroppedReplica) -> Result<Dropped, wire::FieldError> {
    Ok(Dropped {
        node: wire::id("dropped.node_id", &dropped.node_id)?,
        code: ErrorCode::from_name(&dropped.code).unwrap_or(ErrorCode::Internal),
        message: dropped.message,
    })
}

/// Encodes a dropped replica.
pub fn dropped_to_wire(dropped: Dropped) -> v1::DroppedReplica {
    v1::DroppedReplica {
        node_id: dropped.node.to_bytes().to_vec().into(),
        code: dropped.code.name().to_owned(),
        message: dropped.message,
    }
}

/// Returns why a stream ended: an oversized or compressed message would fail again; everything else
/// is caused by the connection.
fn broken(status: &Status) -> Error {
    let message = status.message().to_owned();
    match status.code() {
        Code::OutOfRange | Code::Unimplemented => {
            Error::Refused { code: ErrorCode::InvalidArgument, message }
        }
        _ => Error::Cut(message),
    }
}

/// Decodes the frames of a sender, after its `Attach`.
pub fn frame_from_wire(data: Result<v1::ChunkData, Status>) -> Result<Frame, Error> {
    let data = data.map_err(|status| broken(&status))?;
    let refused =
        |error: wire::FieldError| Error::Refused { code: error.code(), message: error.to_string() };
    match data.kind {
        Some(chunk_data::Kind::Frame(frame)) => wire::frame("frame", frame).map_err(refused),
        Some(chunk_data::Kind::Attach(_)) => {
            Err(refused(wire::FieldError::new("kind", "is a second attach")))
        }
        None => Err(refused(wire::FieldError::new("kind", "is not set"))),
    }
}

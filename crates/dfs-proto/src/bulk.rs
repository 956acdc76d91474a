//! Streams of messages with chunk bytes, without copying these.
//!
//! A general codec copies every message into a separate buffer when it is sent, and again when it
//! is received; for chunk bytes that costs more than everything else a process does with them. Here
//! the bytes are sent verbatim after a head with all other fields (protobuf leaves the order of
//! fields free), and received as a slice of the buffer that the connection read them into. On the
//! wire this is plain gRPC.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use futures_util::future::poll_fn;
use futures_util::{Stream, StreamExt as _};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::{Body as _, Frame};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;

use crate::{FRAME_MESSAGE_LEN_MAX, v1};

/// Path of the call that writes chunk bytes.
pub const CHUNK_DATA_STREAM: &str = "/dfs.v1.DataNode/ChunkDataStream";
/// Path of the call that reads them.
pub const RETRIEVE_CHUNK: &str = "/dfs.v1.DataNode/RetrieveChunk";

/// Length of the prefix of each message: a compression flag and its length.
const PREFIX: usize = 5;
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// `ChunkFrame.data`.
const DATA: u32 = 2;
/// `ChunkData.frame`.
const FRAME: u32 = 2;

/// Sends the frames of a chunk, and returns the acks. Dropping the response resets the stream.
pub async fn chunk_data_stream(
    channel: impl Channel,
    data: impl Stream<Item = v1::ChunkData> + Send + Unpin + 'static,
) -> Result<Incoming<v1::ChunkAck>, Status> {
    call(channel, CHUNK_DATA_STREAM, data).await
}

/// Requests bytes of a chunk, and returns the frames. Dropping the response resets the stream.
pub async fn retrieve_chunk(
    channel: impl Channel,
    request: v1::RetrieveRequest,
) -> Result<Incoming<v1::ChunkFrame>, Status> {
    call(channel, RETRIEVE_CHUNK, futures_util::stream::iter([request])).await
}

/// A channel for calls.
pub trait Channel: GrpcService<Body, ResponseBody: Answer> {}

impl<C: GrpcService<Body, ResponseBody: Answer>> Channel for C {}

/// The response body of a channel.
pub trait Answer: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static {}

impl<B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> Answer for B {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn call<A: Message + Default>(
    mut channel: impl Channel,
    path: &'static str,
    messages: impl Stream<Item = impl Bulk> + Send + Unpin + 'static,
) -> Result<Incoming<A>, Status> {
    poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|error| Status::from_error(error.into()))?;
    let outgoing = Outgoing { messages: messages.map(Ok), bulk: Bytes::new(), end: End::Request };
    let mut request = Request::new(Body::new(outgoing));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = PathAndQuery::from_static(path).into();
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    let answer = channel.call(request).await.map_err(|error| Status::from_error(error.into()))?;
    let status = Status::from_header_map(answer.headers());
    let is_over = status.is_some();
    if let Some(status) = status {
        // No body: an error, or a stream without messages.
        if status.code() != tonic::Code::Ok {
            return Err(status);
        }
    } else if answer.status() != http::StatusCode::OK {
        let message = format!("not a gRPC response: HTTP status {}", answer.status());
        return Err(Status::unavailable(message));
    }
    Ok(Incoming::new(Body::new(answer.into_body()), !is_over))
}

/// Replies to a call with a stream of messages; an error ends it.
pub fn answer<S, M>(messages: Result<S, Status>) -> Response<Body>
where
    S: Stream<Item = Result<M, Status>> + Send + Unpin + 'static,
    M: Bulk,
{
    let messages = match messages {
        Ok(messages) => messages,
        Err(status) => return status.into_http(),
    };
    let outgoing = Outgoing { messages, bulk: Bytes::new(), end: End::Answer };
    let mut answer = Response::new(Body::new(outgoing));
    answer.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    answer
}

/// A message that may carry chunk bytes.
pub trait Bulk: Message + 'static {
    /// Encodes the message in two parts, the second of which is its chunk bytes verbatim.
    fn into_parts(self) -> (Vec<u8>, Bytes)
    where
        Self: Sized,
    {
        (self.encode_to_vec(), Bytes::new())
    }
}

impl Bulk for v1::RetrieveRequest {}
impl Bulk for v1::ChunkAck {}

impl Bulk for v1::ChunkFrame {
    fn into_parts(mut self) -> (Vec<u8>, Bytes) {
        let data = mem::take(&mut self.data);
        let mut head = self.encode_to_vec();
        if !data.is_empty() {
            encode_key(DATA, WireType::LengthDelimited, &mut head);
            encode_varint(data.len() as u64, &mut head);
        }
        (head, data)
    }
}

impl Bulk for v1::ChunkData {
    fn into_parts(self) -> (Vec<u8>, Bytes) {
        let Some(v1::chunk_data::Kind::Frame(frame)) = self.kind else {
            return (self.encode_to_vec(), Bytes::new());
        };
        let (rest, data) = frame.into_parts();
        let mut head = Vec::with_capacity(rest.len() + 8);
        encode_key(FRAME, WireType::LengthDelimited, &mut head);
        encode_varint((rest.len() + data.len()) as u64, &mut head);
        head.extend_from_slice(&rest);
        (head, data)
    }
}

/// End of a body.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Without a status.
    Request,
    /// With a status.
    Answer,
    /// The body has ended.
    Past,
}

/// The body of outgoing messages.
struct Outgoing<S> {
    messages: S,
    /// The second part of a message whose first part was sent.
    bulk: Bytes,
    end: End,
}

impl<S, M> http_body::Body for Outgoing<S>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Bulk,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.bulk.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.bulk)))));
        }
        if self.end == End::Past {
            return Poll::Ready(None);
        }
        let status = match ready!(self.messages.poll_next_unpin(cx)) {
            Some(Ok(message)) => {
                let (head, bulk) = message.into_parts();
                let length = (head.len() + bulk.len()) as u32;
                let mut first = Vec::with_capacity(PREFIX + head.len());
                first.push(0);
                first.extend_from_slice(&length.to_be_bytes());
                first.extend_from_slice(&head);
                self.bulk = bulk;
                return Poll::Ready(Some(Ok(Frame::data(first.into()))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        if mem::replace(&mut self.end, End::Past) == End::Request {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::new();
        let added = status.add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }
}

/// Incoming messages; if a response ends with an error, that is the last item.
#[derive(Debug)]
pub struct Incoming<M> {
    body: Body,
    received: Received,
    /// Set if the body must end with a status.
    owes_status: bool,
    has_ended: bool,
    messages: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Incoming<M> {
    /// Returns the messages of a request.
    pub fn request(request: Request<Body>) -> Self {
        Self::new(request.into_body(), false)
    }

    fn new(body: Body, owes_status: bool) -> Self {
        let received = Received::default();
        Self { body, received, owes_status, has_ended: false, messages: PhantomData }
    }

    /// Returns the next message. Cancel-safe.
    pub async fn message(&mut self) -> Result<Option<M>, Status> {
        self.next().await.transpose()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<M>, Status>> {
        loop {
            if let Some(message) = self.received.take_message()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()? else {
                self.has_ended = true;
                return Poll::Ready(if self.received.remaining() > 0 {
                    Err(Status::unavailable("the stream ended within a message"))
                } else if self.owes_status {
                    Err(Status::unavailable("the stream ended without a status"))
                } else {
                    Ok(None)
                });
            };
            match frame.into_data() {
                Ok(bytes) => self.received.push(bytes),
                Err(frame) => {
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    self.has_ended = true;
                    return Poll::Ready(match status {
                        Some(status) if status.code() != tonic::Code::Ok => Err(status),
                        _ => Ok(None),
                    });
                }
            }
        }
    }
}

impl<M: Message + Default> Stream for Incoming<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let polled = ready!(self.poll(cx));
        self.has_ended |= polled.is_err();
        Poll::Ready(polled.transpose())
    }
}

/// Received bytes, in their original buffers.
#[derive(Debug, Default)]
struct Received {
    pieces: VecDeque<Bytes>,
    length: usize,
    /// Length of the current message, once known.
    wanted: Option<usize>,
}

impl Received {
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.length += bytes.len();
            self.pieces.push_back(bytes);
        }
    }

    fn take_message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let wanted = match self.wanted {
            Some(wanted) => wanted,
            None if self.length < PREFIX => return Ok(None),
            None => {
                if self.get_u8() != 0 {
                    return Err(Status::unimplemented("compressed messages are not supported"));
                }
                let wanted = self.get_u32() as usize;
                if wanted > FRAME_MESSAGE_LEN_MAX {
                    return Err(Status::out_of_range(format!(
                        "a message of {wanted} bytes is too long: {FRAME_MESSAGE_LEN_MAX} at most"
                    )));
                }
                *self.wanted.insert(wanted)
            }
        };
        if self.length < wanted {
            return Ok(None);
        }
        self.wanted = None;
        let message = M::decode(self.take(wanted));
        let wrong = |error| Status::internal(format!("a message cannot be decoded: {error}"));
        message.map(Some).map_err(wrong)
    }
}

impl Buf for Received {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(first) = self.pieces.front_mut() {
            if count < first.len() {
                return first.advance(count);
            }
            count -= first.len();
            self.pieces.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        match self.pieces.front_mut() {
            // No copy is made here, which is the purpose of this module.
            Some(first) if first.len() >= count => {
                let bytes = first.split_to(count);
                self.length -= count;
                if first.is_empty() {
                    self.pieces.pop_front();
                }
                bytes
            }
            _ => {
                let mut bytes = BytesMut::with_capacity(count);
                bytes.put(self.take(count));
                bytes.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests;

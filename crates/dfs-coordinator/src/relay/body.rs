//! The two bodies of a relayed call, and their bounds.
//!
//! The connection to the node pulls the request; a task pushes the response to the client. Each
//! waits for room on the other side before it takes another frame, so that no more of a stream is
//! held than the windows of its two connections and a frame or two between them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::Failure;
use dfs_types::ErrorCode;
use futures_util::task::AtomicWaker;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body::{Body as _, Frame};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use tonic::body::Body;

use crate::lock;
use crate::metrics::{Direction, Relayed};

/// Longest time without a byte in either direction; more than a chunk takes to become durable after
/// its last frame.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// Longest duration of a stream.
const WHOLE_MAX: Duration = Duration::from_hours(1);
/// Frames between the two connections.
const FRAMES_BETWEEN: usize = 1;

/// A call in flight; counted, and holding its permit, until all of it is gone.
pub(super) struct RelayedCall {
    counts: Relayed,
    ends_at: Instant,
    moved_at: Mutex<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl RelayedCall {
    pub(super) fn open(counts: Relayed, permit: OwnedSemaphorePermit) -> Arc<Self> {
        counts.opened();
        let now = Instant::now();
        let moved_at = Mutex::new(now);
        Arc::new(Self { counts, ends_at: now + WHOLE_MAX, moved_at, _permit: permit })
    }

    fn moved(&self, direction: Direction, frame: &Frame<Bytes>) {
        *lock(&self.moved_at) = Instant::now();
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.counts.moved(direction, bytes as u64);
    }

    /// Waits until the idle time or the total time is exceeded.
    async fn expired(&self) {
        loop {
            let at = (*lock(&self.moved_at) + IDLE_MAX).min(self.ends_at);
            if at <= Instant::now() {
                return;
            }
            sleep_until(at).await;
        }
    }
}

impl Drop for RelayedCall {
    fn drop(&mut self) {
        self.counts.closed();
    }
}

/// The request of a call, while the call is open.
struct Source {
    request: Mutex<Option<(Body, Arc<RelayedCall>)>>,
    drawer: AtomicWaker,
}

/// Keeps the request of a call open. When dropped, the node sees the end of the call, whatever the
/// client still has to send.
pub(super) struct Open(Arc<Source>);

impl Drop for Open {
    fn drop(&mut self) {
        // Dropped here, as a connection waiting for room at the node does not poll it.
        drop(lock(&self.0.request).take());
        self.0.drawer.wake();
    }
}

/// Converts the request for the node. Only the headers needed to decode the body are kept; the
/// request id is added as to every call.
pub(super) fn relayed_request(
    path: &'static str,
    request: Request<Body>,
    call: &Arc<RelayedCall>,
) -> (Request<Body>, Open) {
    let (parts, body) = request.into_parts();
    let request = Mutex::new(Some((body, call.clone())));
    let source = Arc::new(Source { request, drawer: AtomicWaker::new() });
    let mut onward = Request::new(Body::new(RequestBody(source.clone())));
    *onward.method_mut() = Method::POST;
    *onward.uri_mut() = PathAndQuery::from_static(path).into();
    *onward.version_mut() = Version::HTTP_2;
    *onward.headers_mut() = of_body(&parts.headers);
    onward.headers_mut().insert(header::TE, http::HeaderValue::from_static("trailers"));
    (onward, Open(source))
}

/// Converts the response for the client. Keeps the request open until its end.
pub(super) fn relayed_response(
    answer: Response<Body>,
    call: Arc<RelayedCall>,
    open: Open,
) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let (frames, pushed) = mpsc::channel(FRAMES_BETWEEN);
    let is_over = body.is_end_stream();
    if !is_over {
        dfs_transport::spawn_in_request(push(body, frames, call, open));
    }
    let mut back =
        Response::new(if is_over { Body::empty() } else { Body::new(ResponseBody(pushed)) });
    *back.status_mut() = parts.status;
    *back.headers_mut() = parts.headers;
    back
}

fn of_body(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [header::CONTENT_TYPE.as_str(), "grpc-encoding", "grpc-accept-encoding"] {
        if let (Some(value), Ok(name)) = (headers.get(name), name.parse::<header::HeaderName>()) {
            kept.insert(name, value.clone());
        }
    }
    kept
}

type Frames = mpsc::Sender<Result<Frame<Bytes>, Status>>;

async fn push(mut body: Body, frames: Frames, call: Arc<RelayedCall>, _open: Open) {
    let moving = async {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            if let Ok(frame) = &frame {
                call.moved(Direction::FromNode, frame);
            }
            if frames.send(frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = moving => {}
        () = frames.closed() => {}
        () = call.expired() => {
            let message = "the stream was idle, or relayed for too long";
            let status = Status::from(Failure::new(ErrorCode::Unavailable, message));
            let mut trailers = HeaderMap::new();
            // A client that does not read gets no status: the stream just ends.
            if status.add_header(&mut trailers).is_ok() {
                drop(frames.try_send(Ok(Frame::trailers(trailers))));
            }
        }
    }
}

/// A request on its way to the node.
struct RequestBody(Arc<Source>);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.drawer.register(cx.waker());
        let mut request = lock(&self.0.request);
        let Some((body, call)) = request.as_mut() else {
            return Poll::Ready(Some(Err(Status::cancelled("the response has ended"))));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            call.moved(Direction::ToNode, frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0.request).as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }
}

/// A response on its way to the client.
struct ResponseBody(mpsc::Receiver<Result<Frame<Bytes>, Status>>);

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx)
    }
}

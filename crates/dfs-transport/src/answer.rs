//! Response bodies that log and end their call.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tonic::Code;
use tracing::Span;

use crate::connection::CallInFlight;

/// A response body. It is produced within the span of the call, and its end is the end of the call.
pub(crate) struct Answer<B> {
    body: B,
    span: Span,
    call: Option<Call>,
}

/// A call in progress.
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) started: Instant,
    pub(crate) in_flight: CallInFlight,
}

impl Call {
    /// Returns the status of a call that ended with its headers.
    pub(crate) fn status(headers: &HeaderMap) -> Option<Code> {
        headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
    }

    fn ended(self, code: Code) {
        let Self { method, started, in_flight } = self;
        let elapsed_ms = started.elapsed().as_millis() as u64;
        tracing::debug!(call = method, ?code, elapsed_ms, "answered");
        drop(in_flight);
    }
}

impl<B> Answer<B> {
    /// Wraps the body of a call; `code` is set if the call has already ended.
    pub(crate) fn new(body: B, span: Span, call: Call, code: Option<Code>) -> Self {
        let call = match code {
            Some(code) => {
                span.in_scope(|| call.ended(code));
                None
            }
            None => Some(call),
        };
        Self { body, span, call }
    }

    fn end(&mut self, code: Code) {
        if let Some(call) = self.call.take() {
            self.span.in_scope(|| call.ended(code));
        }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = &mut *self;
        let polled = this.span.in_scope(|| Pin::new(&mut this.body).poll_frame(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(Call::status) {
                    this.end(code);
                }
            }
            Poll::Ready(Some(Err(_))) => this.end(Code::Unknown),
            Poll::Ready(None) => this.end(Code::Ok),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Answer<B> {
    /// The caller is gone, or needs no more.
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

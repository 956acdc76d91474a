//! One forwarded stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use kube::api::Portforwarder;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// A stream to a port of a pod. What the API server says went wrong at the pod ends it, with that
/// as the error. Dropping it ends the forwarding.
pub(crate) struct Forwarded {
    stream: DuplexStream,
    /// What went wrong at the pod, if it ends with anything.
    trouble: Option<Pin<Box<dyn Future<Output = Option<String>> + Send>>>,
    forwarder: Portforwarder,
    pod: String,
}

impl Forwarded {
    pub(crate) fn new(mut forwarder: Portforwarder, port: u16, pod: &str) -> Option<Self> {
        let stream = forwarder.take_stream(port)?;
        let trouble = forwarder.take_error(port)?;
        Some(Self { stream, trouble: Some(Box::pin(trouble)), forwarder, pod: pod.to_owned() })
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        // It would wait for the other end for as long as that likes.
        self.forwarder.abort();
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(trouble) = &mut this.trouble
            && let Poll::Ready(trouble) = trouble.as_mut().poll(cx)
        {
            this.trouble = None;
            if let Some(trouble) = trouble {
                let message = format!("pod {}: {}", this.pod, trouble.trim());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, message)));
            }
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

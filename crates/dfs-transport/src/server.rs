//! The one place where gRPC servers run.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dfs_types::{OsRandom, RequestId};
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::answer::{Answer, Call};
use crate::channels::{
    CONNECTION_WINDOW, HTTP2_FRAME_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW,
};
use crate::connection::Connection;
use crate::connections::{Admitted, ConnectionLimits, Connections};
use crate::gate::Gate;
use crate::network::Listener;
use crate::observer::Observer;
use crate::request_id::{REQUEST_ID_HEADER, with_request_id};

/// Maximum number of concurrent requests of one connection.
const REQUESTS_PER_CONNECTION: usize = 256;
/// Maximum number of open streams of one connection.
const STREAMS_PER_CONNECTION: u32 = 1_024;

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `routes` behind `gate`, on connections within `limits`, until `shutdown` resolves. Then
/// it accepts no more connections and lets calls under way finish for at most `drain`; what is left
/// is cut. Each call runs within a span with its request id until its response has ended, which is
/// logged there.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    limits: ConnectionLimits,
    routes: Routes,
    gate: Gate,
    observer: Arc<dyn Observer>,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) {
    // Connections are separate tasks; they end when this is dropped.
    let (_alive, ending) = watch::channel(());
    let (stopping, is_stopping) = watch::channel(false);
    let connections = Connections::new(limits, observer.clone());
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION)
        .layer(Tracing { observer })
        .layer(gate);
    let routes = routes.prepare();
    let mut serving = JoinSet::new();
    // A server per connection, so that each can be closed by itself.
    let serve_one = |Admitted { io, close }| {
        let incoming = stream::once(ready(io::Result::Ok(io))).chain(stream::pending());
        let mut is_stopping = is_stopping.clone();
        let closing = async move {
            tokio::select! {
                biased;
                _ = close => {}
                _ = is_stopping.wait_for(|stopping| *stopping) => {}
            }
        };
        let (server, routes) = (server.clone(), routes.clone());
        server.serve_with_incoming_shutdown(routes, incoming, closing)
    };
    let accepting = async {
        loop {
            let accepted = tokio::select! {
                biased;
                Some(_) = serving.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((io, address)) => {
                    let io = io.until_dropped(ending.clone());
                    if let Some(admitted) = connections.admit(io, address) {
                        serving.spawn(serve_one(admitted));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // The next try may fail at once too, as when no more files may be open.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown => {}
        _ = accepting => {}
        _ = connections.close_idle() => {}
    }
    drop(listener);
    stopping.send_replace(true);
    let drained = async { while serving.join_next().await.is_some() {} };
    // What is left after that is cut.
    drop(timeout(drain, drained).await);
}

/// Gives each call its request id and span, and reports it to the observer.
#[derive(Clone)]
struct Tracing {
    observer: Arc<dyn Observer>,
}

impl<S> Layer<S> for Tracing {
    type Service = TraceService<S>;

    fn layer(&self, inner: S) -> TraceService<S> {
        TraceService { inner, observer: self.observer.clone() }
    }
}

#[derive(Clone)]
struct TraceService<S> {
    inner: S,
    observer: Arc<dyn Observer>,
}

impl<S, B, R> Service<Request<B>> for TraceService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<Answer<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let header = request.headers().get(REQUEST_ID_HEADER);
        let id = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let id = id.unwrap_or_else(|| RequestId::random(&OsRandom));
        let method = request.uri().path().to_owned();
        // At error level, so that the span exists at every log level.
        let span = tracing::error_span!("request", %id, method);
        let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
        let in_flight = connection.call_started();
        let (observer, started) = (self.observer.clone(), Instant::now());
        let answer = self.inner.call(request);
        let of_call = span.clone();
        let work = async move {
            let response = answer.await?;
            // Only a reply without a body has its status in the headers.
            let code = Call::status(response.headers());
            observer.answered(&method, code.unwrap_or(Code::Ok), started.elapsed());
            let call = Call { method, started, in_flight };
            Ok(response.map(|body| Answer::new(body, of_call, call, code)))
        };
        Box::pin(with_request_id(id, work).instrument(span))
    }
}

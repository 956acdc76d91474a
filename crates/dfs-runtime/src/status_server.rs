//! HTTP status server: `/metrics`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::{Metrics, Shutdown};

/// Maximum number of concurrent connections; more wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// Time limit for a client to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a connection, which is one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after a failed accept, usually caused by the limit of open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Readiness of a server, with the reason if it is not ready. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Sender<Option<String>>);

impl Readiness {
    /// Returns a readiness that is not ready, for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(watch::Sender::new(Some(reason.into())))
    }

    /// Marks the server as ready.
    pub fn ready(&self) {
        self.0.send_replace(None);
    }

    /// Marks the server as not ready, for this reason.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.0.send_replace(Some(reason.into()));
    }

    /// Returns why it is not ready; `None` if it is.
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until it is ready. Cancel-safe.
    pub async fn wait_ready(&self) {
        // The sender is held by `self`, so this cannot fail.
        let _ = self.0.subscribe().wait_for(Option::is_none).await;
    }
}

/// The status server. Replies to `GET` and `HEAD` of `/metrics` (Prometheus text), `/healthz` (the
/// process is alive, and [healthy](Self::with_health)) and `/readyz` (503 with the reason while not
/// ready).
#[derive(Debug)]
pub struct StatusServer {
    listener: TcpListener,
    address: SocketAddr,
    health: Readiness,
}

impl StatusServer {
    /// Listens on `host:port`; port 0 takes a free one.
    pub async fn bind(address: &str) -> io::Result<Self> {
        Self::new(TcpListener::bind(address).await?)
    }

    /// Uses an existing listener.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let health = Readiness::new("");
        health.ready();
        Ok(Self { listener, address, health })
    }

    /// Makes `/healthz` return 503 while `health` is not ready: for a process that only a restart
    /// can fix.
    #[must_use]
    pub fn with_health(self, health: Readiness) -> Self {
        Self { health, ..self }
    }

    /// Returns the listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until shutdown is requested. Dropping the future cuts every connection.
    pub async fn run(self, metrics: Metrics, readiness: Readiness, shutdown: Shutdown) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let (stream, slot) = tokio::select! {
                biased;
                () = shutdown.requested() => return,
                accepted = self.accept(&slots) => accepted,
            };
            let (metrics, readiness) = (metrics.clone(), readiness.clone());
            let health = self.health.clone();
            connections.spawn(async move {
                let _slot = slot;
                serve(stream, &metrics, &health, &readiness).await;
            });
        }
    }

    async fn accept(&self, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
        let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return (stream, slot),
                Err(error) => {
                    tracing::warn!(%error, address = %self.address, "cannot accept");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, metrics: &Metrics, health: &Readiness, readiness: &Readiness) {
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(answer(&request, metrics, health, readiness))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // An incomplete request gets no response.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

fn answer<B>(
    request: &Request<B>,
    metrics: &Metrics,
    health: &Readiness,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported\n");
    }
    match request.uri().path() {
        "/metrics" => text(StatusCode::OK, metrics.render()),
        "/healthz" => reply(health, "ok\n"),
        "/readyz" => reply(readiness, "ready\n"),
        _ => text(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"),
    }
}

fn reply(readiness: &Readiness, ready: &'static str) -> Response<Full<Bytes>> {
    match readiness.reason() {
        None => text(StatusCode::OK, ready),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::Trigger;

    const DEADLINE: Duration = Duration::from_secs(20);

    struct Running {
        address: SocketAddr,
        metrics: Metrics,
        health: Readiness,
        readiness: Readiness,
        trigger: Trigger,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start() -> Running {
        let health = Readiness::new("");
        health.ready();
        let server = StatusServer::bind("127.0.0.1:0").await.unwrap().with_health(health.clone());
        let address = server.address();
        let (metrics, readiness) = (Metrics::new("test"), Readiness::new("starting"));
        let (trigger, shutdown) = Shutdown::new();
        let task = tokio::spawn(server.run(metrics.clone(), readiness.clone(), shutdown));
        Running { address, metrics, health, readiness, trigger, task }
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap();
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await
    }

    #[tokio::test]
    async fn each_path_has_its_response() {
        let server = start().await;
        server.metrics.counter("cats_total", "Cats.").add(3);
        assert!(get(server.address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(server.address, "/metrics").await.contains("\ncats_total 3\n"));
        assert!(get(server.address, "/").await.starts_with("HTTP/1.1 404"));
        let posted = exchange(server.address, "POST /metrics HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    }

    #[tokio::test]
    async fn readiness_follows_the_flag_with_its_reason() {
        let server = start().await;
        let answer = get(server.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("\r\n\r\nstarting\n"));
        server.readiness.ready();
        assert!(get(server.address, "/readyz").await.starts_with("HTTP/1.1 200"));
        server.readiness.not_ready("disk is full");
        assert!(get(server.address, "/readyz").await.ends_with("disk is full\n"));
    }

    #[tokio::test]
    async fn health_is_independent_of_readiness() {
        let server = start().await;
        assert!(get(server.address, "/healthz").await.starts_with("HTTP/1.1 200"));
        server.readiness.ready();
        server.health.not_ready("deaf");
        assert!(get(server.address, "/healthz").await.ends_with("\r\n\r\ndeaf\n"));
        assert!(get(server.address, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn server_stops_on_request() {
        let server = start().await;
        // A silent connection does not delay it.
        let _silent = TcpStream::connect(server.address).await.unwrap();
        server.trigger.stop();
        tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn silent_clients_occupy_slots_only_until_the_timeout() {
        let server = start().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(server.address).await.unwrap());
        }
        // All slots are taken: this one is served only when the header timeout frees one.
        assert!(get(server.address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let mut byte = [0];
        let closed = silent[0].read(&mut byte);
        assert_eq!(tokio::time::timeout(DEADLINE, closed).await.unwrap().unwrap(), 0);
    }
}

//! Sockets, behind a trait that a simulation can implement.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::transport::server::Connected;

use crate::connection::Connection;
use crate::refusal::Refusal;

/// Default time limit of dialling.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A byte stream between two processes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A connection of a [`Network`].
pub struct Io {
    stream: Box<dyn Stream>,
    /// Completes when the connection must end.
    end: Option<Pin<Box<dyn Future<Output = io::Error> + Send>>>,
    /// Set for an accepted connection.
    connection: Connection,
}

impl Io {
    /// Wraps a byte stream.
    pub fn new(stream: impl Stream) -> Self {
        Self { stream: Box::new(stream), end: None, connection: Connection::default() }
    }

    /// Ends the connection when `end` completes; the first read after that returns its error. `end`
    /// is dropped with the connection.
    #[must_use]
    pub fn until(self, end: impl Future<Output = io::Error> + Send + 'static) -> Self {
        let connection = self.connection.clone();
        Self { stream: Box::new(self), end: Some(Box::pin(end)), connection }
    }

    /// Sets the connection that its requests report.
    pub(crate) fn of(self, connection: Connection) -> Self {
        Self { connection, ..self }
    }

    /// Cuts the connection when the sender of `owner` is dropped.
    pub(crate) fn until_dropped(self, mut owner: watch::Receiver<()>) -> Self {
        self.until(async move {
            while owner.changed().await.is_ok() {}
            io::ErrorKind::ConnectionAborted.into()
        })
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Io")
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end
            && let Poll::Ready(why) = end.as_mut().poll(cx)
        {
            self.end = Some(Box::pin(async { io::ErrorKind::ConnectionAborted.into() }));
            if let Some(bytes) = Refusal::last_words(&why) {
                // They fit into the buffers of a connection on which next to nothing was sent, or
                // are not worth waiting for.
                let _ = Pin::new(&mut self.stream).poll_write(cx, &bytes);
            }
            return Poll::Ready(Err(why));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Io {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

/// Accepts connections.
#[async_trait]
pub trait Listener: Send + 'static {
    /// Returns the listen address, with the assigned port if 0 was requested.
    fn local_address(&self) -> SocketAddr;

    /// Waits for the next connection and returns it with the address of its peer. Cancel-safe. An
    /// error concerns one connection; others may follow.
    async fn accept(&mut self) -> io::Result<(Io, IpAddr)>;
}

/// Connects to other processes.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Dials `host:port`; gives up after [`connect_timeout`](Self::connect_timeout).
    async fn connect(&self, address: &str) -> io::Result<Io>;

    /// Returns the time limit of dialling.
    fn connect_timeout(&self) -> Duration {
        CONNECT_TIMEOUT
    }

    /// Listens on `host:port`; port 0 takes a free one.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;

    /// Resolves the host of a `host:port`; every result has the port. A network without names
    /// returns the address itself.
    async fn resolve(&self, name: &str) -> io::Result<Vec<String>> {
        Ok(vec![name.to_owned()])
    }
}

/// Returns the error code of a process that cannot listen.
pub fn listen_code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::AddrInUse => ErrorCode::Busy,
        io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        // Not a local address, or not an address.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::InvalidInput | io::ErrorKind::NotFound => {
            ErrorCode::InvalidArgument
        }
        _ => ErrorCode::Internal,
    }
}

/// TCP of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNetwork;

struct Tcp {
    listener: TcpListener,
    local: SocketAddr,
}

#[async_trait]
impl Listener for Tcp {
    fn local_address(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> io::Result<(Io, IpAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Io::new(stream), peer.ip()))
    }
}

#[async_trait]
impl Network for TcpNetwork {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(Io::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok(Box::new(Tcp { listener, local }))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<String>> {
        if name.parse::<SocketAddr>().is_ok() {
            return Ok(vec![name.to_owned()]);
        }
        let found = tokio::net::lookup_host(name).await?;
        Ok(found.map(|address| address.to_string()).collect())
    }
}

//! Sockets of a simulation.
//!
//! A runtime that is dropped drops its tasks in an order that depends on the number of tasks the
//! whole process ever started, other simulations included. A crash therefore closes the connections
//! of its machine in the order in which they were made, before their tasks are dropped: otherwise
//! peers would learn of it in a different order each time.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use dfs_transport::{CONNECT_TIMEOUT, Io, Listener, Network};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network of the calling host. Works only within a simulation. Clones share their
/// connections.
#[derive(Debug, Clone, Default)]
pub struct SimNetwork {
    connections: Arc<Connections>,
}

/// The connections of one life of a machine.
#[derive(Debug, Default)]
struct Connections(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    /// Streams by number, in the order of their creation.
    streams: BTreeMap<u64, Arc<Stream>>,
    made: u64,
    is_ending: bool,
}

/// `None` once it is closed.
type Stream = Mutex<Option<TcpStream>>;

impl SimNetwork {
    /// Makes the next connection that is dropped close all of them in order.
    pub(super) fn end(&self) {
        lock(&self.connections.0).is_ending = true;
    }

    fn connection(&self, stream: TcpStream) -> Io {
        let stream = Arc::new(Mutex::new(Some(stream)));
        let mut open = lock(&self.connections.0);
        let number = open.made;
        open.made += 1;
        open.streams.insert(number, stream.clone());
        Io::new(Connection { number, stream, all: self.connections.clone() })
    }
}

#[async_trait]
impl Network for SimNetwork {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(self.connection(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok(Box::new(Tcp { listener, local, network: self.clone() }))
    }
}

struct Tcp {
    listener: TcpListener,
    local: SocketAddr,
    network: SimNetwork,
}

#[async_trait]
impl Listener for Tcp {
    fn local_address(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> io::Result<(Io, IpAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((self.network.connection(stream), peer.ip()))
    }
}

struct Connection {
    number: u64,
    stream: Arc<Stream>,
    all: Arc<Connections>,
}

impl Connection {
    fn with<T>(
        &self,
        poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *lock(&self.stream) {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = lock(&self.all.0);
        let closed = if open.is_ending {
            mem::take(&mut open.streams)
        } else {
            open.streams.remove(&self.number).map(|own| (self.number, own)).into_iter().collect()
        };
        drop(open);
        for stream in closed.values() {
            drop(lock(stream).take());
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Sockets of a simulation.

use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use dfs_transport::{CONNECT_TIMEOUT, Io, Listener, Network};
use turmoil::net::{TcpListener, TcpStream};

/// The simulated network that the calling host is part of. Works within a simulation alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimNetwork;

struct Tcp {
    listener: TcpListener,
    local: SocketAddr,
}

#[async_trait]
impl Network for SimNetwork {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Io::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok(Box::new(Tcp { listener, local }))
    }
}

#[async_trait]
impl Listener for Tcp {
    fn local_address(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> io::Result<(Io, IpAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((Io::new(stream), peer.ip()))
    }
}

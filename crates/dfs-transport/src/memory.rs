//! An in-process network for tests: no ports, no timers, and connections can be cut.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::network::{Io, Listener, Network};

/// Bytes buffered on a connection in each direction.
const LINE_BUFFER: usize = 256 << 10;
/// Maximum number of connections waiting to be accepted.
const BACKLOG: usize = 16;
/// First port assigned for port 0.
const FIRST_PORT: u16 = 50_000;

/// An in-process network; clones share it.
#[derive(Clone)]
pub struct MemoryNetwork {
    lines: Arc<Mutex<Lines>>,
    /// The address that connections come from.
    host: IpAddr,
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self { lines: Arc::default(), host: Ipv4Addr::LOCALHOST.into() }
    }
}

#[derive(Default)]
struct Lines {
    listeners: BTreeMap<String, mpsc::Sender<(Io, IpAddr)>>,
    /// A line is cut when its sender is dropped.
    connected: Vec<watch::Sender<()>>,
    dialled: usize,
    ports_given: u16,
    /// Addresses by name; other names are addresses themselves.
    names: BTreeMap<String, Vec<String>>,
    looked_up: usize,
}

impl MemoryNetwork {
    /// Returns the same network, with connections that come from `host`.
    #[must_use]
    pub fn from_host(&self, host: impl Into<IpAddr>) -> Self {
        Self { lines: self.lines.clone(), host: host.into() }
    }

    /// Cuts every connection there is. New ones can be made at once.
    pub fn cut(&self) {
        self.lock().connected.clear();
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        self.lock().connected.iter().filter(|line| !line.is_closed()).count()
    }

    /// Returns the number of connections ever established.
    pub fn dialled(&self) -> usize {
        self.lock().dialled
    }

    /// Sets the addresses of a name, all `host:port`. Without any, its lookup fails.
    pub fn name<const N: usize>(&self, name: &str, addresses: [&str; N]) {
        let addresses = addresses.map(ToOwned::to_owned).to_vec();
        self.lock().names.insert(name.to_owned(), addresses);
    }

    /// Returns the number of name lookups.
    pub fn looked_up(&self) -> usize {
        self.lock().looked_up
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        let (here, there) = tokio::io::duplex(LINE_BUFFER);
        let (line, _) = watch::channel(());
        let listener = {
            let lines = self.lock();
            let listener = lines.listeners.get(address).cloned();
            listener.ok_or(io::ErrorKind::ConnectionRefused)?
        };
        let there = Io::new(there).until_dropped(line.subscribe());
        let here = Io::new(here).until_dropped(line.subscribe());
        listener.send((there, self.host)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        let mut lines = self.lock();
        lines.connected.retain(|line| !line.is_closed());
        lines.connected.push(line);
        lines.dialled += 1;
        Ok(here)
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let mut port: u16 = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        let (give, incoming) = mpsc::channel(BACKLOG);
        let mut lines = self.lock();
        if port == 0 {
            port = FIRST_PORT + lines.ports_given;
            lines.ports_given += 1;
        }
        let address = format!("{host}:{port}");
        if lines.listeners.get(&address).is_some_and(|listener| !listener.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        lines.listeners.insert(address.clone(), give);
        let local =
            address.parse().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(Box::new(MemoryListener { incoming, local }))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<String>> {
        let mut lines = self.lock();
        lines.looked_up += 1;
        match lines.names.get(name) {
            None => Ok(vec![name.to_owned()]),
            Some(addresses) if addresses.is_empty() => Err(io::ErrorKind::NotFound.into()),
            Some(addresses) => Ok(addresses.clone()),
        }
    }
}

struct MemoryListener {
    incoming: mpsc::Receiver<(Io, IpAddr)>,
    local: SocketAddr,
}

#[async_trait]
impl Listener for MemoryListener {
    fn local_address(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> io::Result<(Io, IpAddr)> {
        // The network holds the sender until the address has another listener.
        self.incoming.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

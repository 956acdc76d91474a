//! The one place where channels are created.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use dfs_types::NodeId;
use hyper_util::rt::TokioIo;
use tokio::sync::OnceCell;
use tonic::codegen::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use crate::dial::{self, ConnectError, DialError};
use crate::{CallHeaders, Io, Network};

/// Maximum HTTP/2 frame size accepted: big frames save system calls.
pub(crate) const HTTP2_FRAME_MAX: u32 = 1 << 20;
/// Flow control window of a stream in bytes: a window of chunk bytes plus overhead, so that frames
/// are not split.
pub(crate) const STREAM_WINDOW: u32 = (4 << 20) + (64 << 10);
/// Flow control window of a connection in bytes; h2 also treats small frames that add up to more
/// than half of it as an attack.
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
/// Interval of keepalive pings on a busy connection, where bulk bytes may delay the reply.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time limit of the reply to a ping.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Keepalive interval of control connections, whose callers can fail over to another peer.
const CONTROL_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const CONTROL_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit of a name lookup.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of addresses of a name.
const ADDRESSES_MAX: usize = 64;

/// Bulk connections per peer. A connection is one task, thus limited to one core on each side.
const BULK_CONNECTIONS: u64 = 2;
/// Maximum number of channels kept; the least recently used are evicted.
const CHANNELS_MAX: usize = 1_024;

/// A channel that adds the request id to each call.
pub type ClientChannel = InterceptedService<Channel, CallHeaders>;

/// Purpose of a connection. Small calls do not wait behind chunk bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Small calls.
    Control,
    /// Chunk bytes. Calls with the same key share a connection.
    Bulk(u64),
}

impl Lane {
    /// Returns the connection number: 0 for control calls, others for bulk.
    fn connection(self) -> u64 {
        match self {
            Self::Control => CONTROL,
            Self::Bulk(key) => CONTROL + 1 + key % BULK_CONNECTIONS,
        }
    }
}

/// Protection of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// None.
    #[default]
    Plaintext,
}

/// An address that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: expected host:port or http://host:port")]
pub struct AddressError(pub String);

/// Channels to other processes: created on first use, kept, and reconnected after a connection
/// breaks. Clones share them.
#[derive(Clone)]
pub struct Channels {
    network: Arc<dyn Network>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// Each with the sequence number of its last use.
    channels: BTreeMap<Key, (u64, Channel)>,
    uses: u64,
    /// Connection attempts with waiters.
    dialling: BTreeMap<Key, Arc<Dialling>>,
}

/// Address and connection number.
type Key = (String, u64);
/// Set by the task that dials, for all waiters.
type Dialling = OnceCell<Result<Channel, ConnectError>>;

const CONTROL: u64 = 0;

impl Channels {
    /// Creates channels over `network`.
    pub fn new(network: Arc<dyn Network>, security: Security) -> Self {
        match security {
            Security::Plaintext => Self { network, kept: Arc::default() },
        }
    }

    /// Returns a channel for small calls.
    pub fn control(&self, address: &str) -> Result<ClientChannel, AddressError> {
        self.channel(address, Lane::Control)
    }

    /// Returns a channel for chunk bytes. Calls with the same key share a connection.
    pub fn bulk(&self, address: &str, key: u64) -> Result<ClientChannel, AddressError> {
        self.channel(address, Lane::Bulk(key))
    }

    /// Returns a channel that has been connected at least once, for callers that can fail over to
    /// another peer. All callers of the same channel wait for one connection attempt, and get its
    /// error at the same time. Cancel-safe.
    pub async fn dial(&self, address: &str, lane: Lane) -> Result<ClientChannel, DialError> {
        let key = (Self::parse_address(address)?, lane.connection());
        let dialling = {
            let mut kept = self.kept();
            if let Some(channel) = kept.used(&key) {
                return Ok(client_channel(channel, None));
            }
            if kept.dialling.len() >= CHANNELS_MAX {
                // Attempts without waiters, or one of very many.
                kept.dialling.clear();
            }
            kept.dialling.entry(key.clone()).or_default().clone()
        };
        let (endpoint, connector) = self.endpoint(&key.0, lane)?;
        let connect = || async {
            let connected = endpoint.connect_with_connector(connector).await;
            connected.map_err(|error| not_connected(&key.0, error))
        };
        let dialled = dialling.get_or_init(connect).await.clone();
        let mut kept = self.kept();
        if kept.dialling.get(&key).is_some_and(|one| Arc::ptr_eq(one, &dialling)) {
            kept.dialling.remove(&key);
            if let Ok(channel) = &dialled {
                kept.keep(key, channel.clone());
            }
        }
        Ok(client_channel(dialled?, None))
    }

    /// Like [`Channels::dial`], to a coordinator that relays the calls to `node`.
    pub async fn dial_through(
        &self,
        coordinator: &str,
        lane: Lane,
        node: NodeId,
    ) -> Result<ClientChannel, DialError> {
        self.dial(coordinator, lane).await?;
        Ok(client_channel(self.made(coordinator, lane)?, Some(node)))
    }

    /// Drops a channel, so that the next user dials again. Calls in progress keep theirs.
    pub fn forget(&self, address: &str, lane: Lane) {
        self.kept().channels.remove(&(address.to_owned(), lane.connection()));
    }

    /// Makes the next small call dial again: a connection without replies may be half-open. Calls
    /// in progress keep theirs.
    pub fn redial(&self, address: &str) {
        self.forget(address, Lane::Control);
    }

    /// Resolves `host:port` to its addresses: sorted, distinct, and at least one.
    pub async fn resolve(&self, name: &str) -> io::Result<Vec<String>> {
        let looking = tokio::time::timeout(RESOLVE_TIMEOUT, self.network.resolve(name));
        let mut found = looking.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        found.sort();
        found.dedup();
        found.truncate(ADDRESSES_MAX);
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }

    /// Validates an address and normalises it to `host:port`.
    pub fn parse_address(address: &str) -> Result<String, AddressError> {
        let wrong = || AddressError(address.to_owned());
        let plain = address.strip_prefix("http://").unwrap_or(address);
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        let (host, port) = plain.rsplit_once(':').ok_or_else(wrong)?;
        let uri: Uri = format!("http://{plain}").parse().map_err(|_| wrong())?;
        // Only an authority, without user info, and with a plain number as the port.
        let is_plain = uri.authority().is_some_and(|authority| authority.as_str() == plain);
        let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
        if host.is_empty() || plain.contains('@') || !is_plain || !is_number {
            return Err(wrong());
        }
        port.parse::<u16>().map_err(|_| wrong())?;
        Ok(plain.to_owned())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self, address: &str, lane: Lane) -> Result<ClientChannel, AddressError> {
        Ok(client_channel(self.made(address, lane)?, None))
    }

    fn made(&self, address: &str, lane: Lane) -> Result<Channel, AddressError> {
        let key = (Self::parse_address(address)?, lane.connection());
        let mut kept = self.kept();
        if let Some(channel) = kept.used(&key) {
            return Ok(channel);
        }
        let (endpoint, connector) = self.endpoint(&key.0, lane)?;
        let channel = endpoint.connect_with_connector_lazy(connector);
        kept.keep(key, channel.clone());
        Ok(channel)
    }

    fn endpoint(&self, address: &str, lane: Lane) -> Result<(Endpoint, Connector), AddressError> {
        let (interval, timeout) = match lane {
            Lane::Control => (CONTROL_KEEPALIVE_INTERVAL, CONTROL_KEEPALIVE_TIMEOUT),
            Lane::Bulk(_) => (KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT),
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| AddressError(address.to_owned()))?
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP2_FRAME_MAX);
        Ok((endpoint, Connector { network: self.network.clone(), address: address.to_owned() }))
    }
}

/// Dials one fixed address, whatever URI is requested.
#[derive(Clone)]
struct Connector {
    network: Arc<dyn Network>,
    address: String,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Io>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { network, address } = self.clone();
        Box::pin(async move { Ok(TokioIo::new(dial::connect(&*network, &address).await?)) })
    }
}

impl Kept {
    /// Returns an existing channel and marks it as used.
    fn used(&mut self, key: &Key) -> Option<Channel> {
        self.uses += 1;
        let (used, channel) = self.channels.get_mut(key)?;
        *used = self.uses;
        Some(channel.clone())
    }

    /// Keeps a new channel, evicting the least recently used one if there are too many.
    fn keep(&mut self, key: Key, channel: Channel) {
        if self.channels.len() >= CHANNELS_MAX {
            let oldest = self.channels.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.channels.remove(&oldest);
            }
        }
        self.channels.insert(key, (self.uses, channel));
    }
}

fn client_channel(channel: Channel, node: Option<NodeId>) -> ClientChannel {
    ClientChannel::new(channel, CallHeaders { node })
}

/// Returns the network error of a failed first connection.
fn not_connected(address: &str, error: tonic::transport::Error) -> ConnectError {
    dial::within(&error).cloned().unwrap_or_else(|| ConnectError {
        address: address.to_owned(),
        reason: Arc::new(io::Error::other(error)),
    })
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channels")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_normal_form() {
        for address in ["127.0.0.1:7070", "http://127.0.0.1:7070", "http://127.0.0.1:7070/"] {
            assert_eq!(Channels::parse_address(address).as_deref(), Ok("127.0.0.1:7070"));
        }
        assert!(Channels::parse_address("[::1]:7070").is_ok());
        for address in [
            "",
            "localhost",
            ":1",
            "a:",
            "a:b",
            "a:+1",
            "a:70000",
            "ftp://a:1",
            "https://a:1",
            "http://a:1/x",
            "http://a:1//",
            "a:1?q",
            "a:1#f",
            "a#f:1",
            "a/b:1",
            "a?b:1",
            "a b:1",
            "u@a:1",
            "::1:7070",
            "a:1\n",
        ] {
            assert!(Channels::parse_address(address).is_err(), "{address}");
        }
    }
}

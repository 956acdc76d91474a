//! The one place where channels are made.

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

/// Largest HTTP/2 frame that is taken: big ones save system calls.
pub(crate) const HTTP2_FRAME_MAX: u32 = 1 << 20;
/// Bytes of one stream that may be under way unread: a window of chunk bytes with what comes along
/// with it, so that frames are not cut in two.
pub(crate) const STREAM_WINDOW: u32 = (4 << 20) + (64 << 10);
/// Bytes of one connection that may be under way unread; half of it is also what small frames may
/// add up to before h2 takes them for an attack.
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
/// How often a busy connection is asked whether it lives, as long as bulk bytes may keep both
/// sides from answering.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer may take.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for connections with small calls alone, whose callers have another peer to turn to.
const CONTROL_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const CONTROL_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long names may take to look up.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name.
const ADDRESSES_MAX: usize = 64;

/// Bulk connections to one peer. One connection is one task, thus at most one core on each side.
const BULK_CONNECTIONS: u64 = 2;
/// Channels that are kept at most; those used least recently go first.
const CHANNELS_MAX: usize = 1_024;

/// A channel that adds the request id to each call.
pub type ClientChannel = InterceptedService<Channel, CallHeaders>;

/// What a connection is for. Small calls do not wait behind chunk bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Small calls.
    Control,
    /// Chunk bytes. Calls with the same key share a connection.
    Bulk(u64),
}

impl Lane {
    /// The connection that control calls share is 0; bulk connections come after it.
    fn connection(self) -> u64 {
        match self {
            Self::Control => CONTROL,
            Self::Bulk(key) => CONTROL + 1 + key % BULK_CONNECTIONS,
        }
    }
}

/// How channels are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// Not at all.
    #[default]
    Plaintext,
}

/// An address that no channel can be made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: host:port or http://host:port is wanted")]
pub struct AddressError(pub String);

/// Channels to other processes: made when first used, kept, and dialled again by themselves after
/// a connection broke. Clones share them.
#[derive(Clone)]
pub struct Channels {
    network: Arc<dyn Network>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// With the number of its last use.
    channels: BTreeMap<Key, (u64, Channel)>,
    uses: u64,
    /// Those that somebody waits for.
    dialling: BTreeMap<Key, Arc<Dialling>>,
}

/// Address and connection.
type Key = (String, u64);
/// Set by whoever dials, for all who wait.
type Dialling = OnceCell<Result<Channel, ConnectError>>;

const CONTROL: u64 = 0;

impl Channels {
    /// Makes channels over `network`.
    pub fn new(network: Arc<dyn Network>, security: Security) -> Self {
        match security {
            Security::Plaintext => Self { network, kept: Arc::default() },
        }
    }

    /// A channel for small calls.
    pub fn control(&self, address: &str) -> Result<ClientChannel, AddressError> {
        self.channel(address, Lane::Control)
    }

    /// A channel for chunk bytes. Calls with the same key share a connection.
    pub fn bulk(&self, address: &str, key: u64) -> Result<ClientChannel, AddressError> {
        self.channel(address, Lane::Bulk(key))
    }

    /// A channel whose connection was made at least once: the way for those who have another peer
    /// to turn to. All who want the same one wait for one dialling, and learn at the same time
    /// that it failed. Cancel-safe.
    pub async fn dial(&self, address: &str, lane: Lane) -> Result<ClientChannel, DialError> {
        let key = (Self::parse_address(address)?, lane.connection());
        let dialling = {
            let mut kept = self.kept();
            if let Some(channel) = kept.used(&key) {
                return Ok(client_channel(channel, None));
            }
            if kept.dialling.len() >= CHANNELS_MAX {
                // Nobody waits for these, or each for one of very many.
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

    /// The same to a coordinator that shall pass calls on to `node`.
    pub async fn dial_through(
        &self,
        coordinator: &str,
        lane: Lane,
        node: NodeId,
    ) -> Result<ClientChannel, DialError> {
        self.dial(coordinator, lane).await?;
        Ok(client_channel(self.made(coordinator, lane)?, Some(node)))
    }

    /// Forgets a channel, so that who wants it next dials anew. Calls under way keep theirs.
    pub fn forget(&self, address: &str, lane: Lane) {
        self.kept().channels.remove(&(address.to_owned(), lane.connection()));
    }

    /// Makes the next small call dial anew: a connection that gives no answer may be one whose
    /// other end is long gone. Calls under way keep theirs.
    pub fn redial(&self, address: &str) {
        self.forget(address, Lane::Control);
    }

    /// The addresses that stand behind `host:port`: each of them once, in order, and at least one.
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

    /// Checks an address and takes it to its plain form `host:port`.
    pub fn parse_address(address: &str) -> Result<String, AddressError> {
        let wrong = || AddressError(address.to_owned());
        let plain = address.strip_prefix("http://").unwrap_or(address);
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        let (host, port) = plain.rsplit_once(':').ok_or_else(wrong)?;
        let uri: Uri = format!("http://{plain}").parse().map_err(|_| wrong())?;
        // Nothing but an authority, which has all of it, and a plain number.
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

/// Dials one address, whatever it is asked for.
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
    /// A channel that is there, which thereby is used.
    fn used(&mut self, key: &Key) -> Option<Channel> {
        self.uses += 1;
        let (used, channel) = self.channels.get_mut(key)?;
        *used = self.uses;
        Some(channel.clone())
    }

    /// Keeps a new one, in place of the one that was not used for longest if there are many.
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

/// What a first connection failed of, as the network said it.
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
    fn addresses_have_one_plain_form() {
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

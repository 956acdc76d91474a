//! The one place where channels are made.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::codegen::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::network::CONNECT_TIMEOUT;
use crate::{AddRequestId, Network};

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
pub type Traced = InterceptedService<Channel, AddRequestId>;

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
    /// By address and connection; the number says when it was used last.
    channels: BTreeMap<(String, u64), (u64, Channel)>,
    uses: u64,
}

/// The connection that control calls share; bulk connections come after it.
const CONTROL: u64 = 0;

impl Channels {
    /// Makes channels over `network`.
    pub fn new(network: Arc<dyn Network>, security: Security) -> Self {
        match security {
            Security::Plaintext => Self { network, kept: Arc::default() },
        }
    }

    /// A channel for small calls.
    pub fn control(&self, address: &str) -> Result<Traced, AddressError> {
        self.channel(address, CONTROL)
    }

    /// A channel for chunk bytes. Calls with the same key share a connection.
    pub fn bulk(&self, address: &str, key: u64) -> Result<Traced, AddressError> {
        self.channel(address, CONTROL + 1 + key % BULK_CONNECTIONS)
    }

    /// Makes the next small call dial anew: a connection that gives no answer may be one whose
    /// other end is long gone. Calls under way keep theirs.
    pub fn redial(&self, address: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.channels.remove(&(address.to_owned(), CONTROL));
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

    fn channel(&self, address: &str, connection: u64) -> Result<Traced, AddressError> {
        let address = Self::parse_address(address)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        let key = (address, connection);
        if let Some((used, channel)) = kept.channels.get_mut(&key) {
            *used = now;
            return Ok(Traced::new(channel.clone(), AddRequestId));
        }
        if kept.channels.len() >= CHANNELS_MAX {
            let oldest = kept.channels.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                kept.channels.remove(&oldest);
            }
        }
        let channel = self.make(&key.0, connection)?;
        kept.channels.insert(key, (now, channel.clone()));
        Ok(Traced::new(channel, AddRequestId))
    }

    fn make(&self, address: &str, connection: u64) -> Result<Channel, AddressError> {
        let (interval, timeout) = match connection {
            CONTROL => (CONTROL_KEEPALIVE_INTERVAL, CONTROL_KEEPALIVE_TIMEOUT),
            _ => (KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT),
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| AddressError(address.to_owned()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP2_FRAME_MAX);
        let (network, address) = (self.network.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (network, address) = (network.clone(), address.clone());
            async move { Ok::<_, io::Error>(TokioIo::new(network.connect(&address).await?)) }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
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

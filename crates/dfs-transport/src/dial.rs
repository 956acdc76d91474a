//! Failures to connect, distinguished from failures of established connections.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use crate::{AddressError, ClientChannel, Io, Network};

/// Maximum number of tries of a call that finds its connection closing.
const TRIES: usize = 8;

/// A connection could not be established, so nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot connect to {address}: {reason}")]
pub struct ConnectError {
    /// Target address, `host:port`.
    pub address: String,
    /// Error of the network.
    pub reason: Arc<io::Error>,
}

/// Why there is no channel.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// The address is malformed.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The peer cannot be reached now.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Returns the connect error, if that is why a call failed.
pub fn connect_error(status: &Status) -> Option<&ConnectError> {
    within(status.source()?)
}

/// Makes a call, and makes it again on a new connection if the server was just closing an idle one.
/// Nothing of the call was processed then, and the caller does not notice.
pub async fn call<T, R>(
    channel: ClientChannel,
    send: impl Fn(ClientChannel) -> R,
) -> Result<T, Status>
where
    R: Future<Output = Result<T, Status>>,
{
    for _ in 1..TRIES {
        match send(channel.clone()).await {
            // The channel notices the end of its connection in another task.
            Err(status) if is_unprocessed(&status) => tokio::task::yield_now().await,
            sent => return sent,
        }
    }
    send(channel).await
}

/// Returns true if the connection was closed gracefully before the server took the call.
fn is_unprocessed(status: &Status) -> bool {
    let is_unprocessed = |error: &(dyn Error + 'static)| {
        let is_unsent = error.downcast_ref().is_some_and(hyper::Error::is_canceled);
        let is_above_last_stream = error.downcast_ref().is_some_and(|error: &h2::Error| {
            error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
        });
        is_unsent || is_above_last_stream
    };
    causes(status.source()).any(is_unprocessed)
}

/// Like [`connect_error`], for any error.
pub(crate) fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ConnectError> {
    causes(Some(error)).find_map(|error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.and_then(|inner| inner.downcast_ref())
    })
}

/// Iterates over an error and its causes.
fn causes<'a>(
    error: Option<&'a (dyn Error + 'static)>,
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error, |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// Dials, up to the time limit of the network.
pub(crate) async fn connect(network: &dyn Network, address: &str) -> io::Result<Io> {
    let within: Duration = network.connect_timeout();
    let dialled = match tokio::time::timeout(within, network.connect(address)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no reply within {} ms", within.as_millis()),
        )),
    };
    dialled.map_err(|error| {
        let kind = error.kind();
        let reason = Arc::new(error);
        io::Error::new(kind, ConnectError { address: address.to_owned(), reason })
    })
}

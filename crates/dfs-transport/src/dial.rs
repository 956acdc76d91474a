//! Failures to connect, distinguished from failures of established connections.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use crate::{AddressError, Io, Network};

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

/// Like [`connect_error`], for any error.
pub(crate) fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ConnectError> {
    let mut next = Some(error);
    while let Some(error) = next {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| inner.downcast_ref()) {
            return Some(found);
        }
        next = error.source();
    }
    None
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

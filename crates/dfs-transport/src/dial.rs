//! Connections that could not be made, told apart from all that goes wrong on those that were.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use crate::{AddressError, Io, Network};

/// A connection could not be made, so that nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot connect to {address}: {reason}")]
pub struct ConnectError {
    /// Where to, as `host:port`.
    pub address: String,
    /// What the network said.
    pub reason: Arc<io::Error>,
}

/// Why there is no channel.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// There can be none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody answers there now.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// The connection that could not be made, if that is why a call failed.
pub fn connect_error(status: &Status) -> Option<&ConnectError> {
    within(status.source()?)
}

/// The same for any error.
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

/// Dials, for as long as that may take.
pub(crate) async fn connect(network: &dyn Network, address: &str) -> io::Result<Io> {
    let within: Duration = network.connect_timeout();
    let dialled = match tokio::time::timeout(within, network.connect(address)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} ms", within.as_millis()),
        )),
    };
    dialled.map_err(|error| {
        let kind = error.kind();
        let reason = Arc::new(error);
        io::Error::new(kind, ConnectError { address: address.to_owned(), reason })
    })
}

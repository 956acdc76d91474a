//! One member of etcd.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::error::{Error, with_causes};
use crate::settings::{Settings, Tls};

/// Time limit of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval of keep-alives on a connection with calls. etcd closes connections that send them more
/// often than every 5 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
/// Time limit for their replies.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which a silent member is tried after the others.
const SHUNNED: Duration = Duration::from_secs(3);
/// Bytes in flight per connection, and per stream.
const WINDOW_BYTES: u32 = 8 << 20;

/// A member and its connection, made when first needed.
#[derive(Debug)]
pub(crate) struct Member {
    address: String,
    endpoint: Endpoint,
    channel: Mutex<Channel>,
    silent_at: Mutex<Option<Instant>>,
}

impl Member {
    pub(crate) fn new(address: &str, settings: &Settings) -> Result<Self, Error> {
        let wrong = |error: &dyn std::error::Error| {
            Error::Settings(format!(
                "cannot connect to {address}: {}",
                with_causes(error.to_string(), error)
            ))
        };
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| wrong(&error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        if let Some(tls) = &settings.tls {
            endpoint = endpoint.tls_config(tls_config(tls)).map_err(|error| wrong(&error))?;
        }
        let channel = Mutex::new(endpoint.connect_lazy());
        let (address, silent_at) = (address.to_owned(), Mutex::default());
        Ok(Self { address, endpoint, channel, silent_at })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn channel(&self) -> Channel {
        lock(&self.channel).clone()
    }

    /// Records that it left a call unanswered. Later calls get a new connection, as this one may be
    /// cut.
    pub(crate) fn fell_silent(&self) {
        *lock(&self.silent_at) = Some(Instant::now());
        *lock(&self.channel) = self.endpoint.connect_lazy();
    }

    /// Returns whether it recently left a call unanswered.
    pub(crate) fn was_silent(&self) -> bool {
        lock(&self.silent_at).is_some_and(|at| at.elapsed() < SHUNNED)
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls_config(tls: &Tls) -> ClientTlsConfig {
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
    match &tls.identity {
        None => config,
        Some(own) => config.identity(Identity::from_pem(&own.certificate, &own.key)),
    }
}

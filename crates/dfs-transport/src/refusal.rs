//! Connections that a server does not keep.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Why a server refused or closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The limit of connections is reached.
    #[error("the server holds {0} connections, its limit; try again later")]
    Total(usize),
    /// The limit of connections from that address is reached.
    #[error("the server holds {limit} connections from {address}, its limit; try again later")]
    Address {
        /// The peer address.
        address: IpAddr,
        /// The limit.
        limit: usize,
    },
    /// Others waited for their first call as well, and this one was the oldest.
    #[error("over {0} connections wait for their first call; this one was the oldest")]
    Pending(usize),
    /// No call came in time.
    #[error("no call was accepted on the connection within {} ms", .0.as_millis())]
    NoCall(Duration),
    /// A new connection took the place of one without a call in flight.
    #[error("a new connection took the place of an idle one")]
    Displaced,
    /// No call was in flight for too long.
    #[error("no call was in flight for {} s", .0.as_secs())]
    Idle(Duration),
}

impl Refusal {
    /// All names, for a label of a metric.
    pub const NAMES: &[&str] = &["total", "address", "pending", "no_call", "displaced", "idle"];

    /// The name for a label of a metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total(_) => "total",
            Self::Address { .. } => "address",
            Self::Pending(_) => "pending",
            Self::NoCall(_) => "no_call",
            Self::Displaced => "displaced",
            Self::Idle(_) => "idle",
        }
    }

    /// The HTTP/2 frames that carry the reason: a GOAWAY with ENHANCE_YOUR_CALM, after the settings
    /// that every connection opens with unless it is open already.
    pub(crate) fn frames(self, is_open: bool) -> Vec<u8> {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        const ENHANCE_YOUR_CALM: u32 = 0xb;
        let text = self.to_string();
        let length = (8 + text.len()) as u32;
        let mut frames = if is_open { Vec::new() } else { SETTINGS.to_vec() };
        frames.extend(&length.to_be_bytes()[1..]);
        frames.extend([7, 0, 0, 0, 0, 0]);
        // The last stream that was processed: none, so that every call may be sent again.
        frames.extend([0; 4]);
        frames.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frames.extend(text.as_bytes());
        frames
    }

    /// Returns the bytes to write to a connection that ends with `error`, if that is a refusal.
    pub(crate) fn last_words(error: &io::Error) -> Option<Vec<u8>> {
        let refusal: &Self = error.get_ref()?.downcast_ref()?;
        Some(refusal.frames(true))
    }
}

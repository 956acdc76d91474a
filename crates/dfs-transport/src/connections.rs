//! The connections that a server holds: how many, from whom, and for how long without a call.
//!
//! ```text
//!  accept ─► server or address full ─► refused
//!     └────► pending ─► the gate accepts a call ─► open until closed
//!               └─────► no call in time, or too many pending ─► closed
//! ```
//!
//! A refused connection receives a GOAWAY that names the limit, so that the caller's error does too.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::connection::Connection;
use crate::network::Io;
use crate::observer::Observer;
use crate::refusal::Refusal;

/// Time between two log lines about refused connections.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of refused connections that may be reading the reason at the same time; others
/// are closed at once.
const REFUSALS_UNDER_WAY: usize = 64;
/// Time for a refused peer to read the reason.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds on the connections of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of connections in all.
    pub total: usize,
    /// Maximum number of connections per peer address, behind which there may be many clients.
    pub per_address: usize,
    /// Maximum number of connections on which the gate has not accepted a call yet. When there are
    /// more, the oldest one of the address that has the most of them is closed, so that a flood
    /// from one address does not affect others.
    pub pending: usize,
    /// Maximum time that a connection may stay pending.
    pub first_call_within: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 1_024,
            per_address: 256,
            pending: 64,
            first_call_within: Duration::from_secs(10),
        }
    }
}

/// The connections of one server.
pub(crate) struct Connections {
    limits: ConnectionLimits,
    observer: Arc<dyn Observer>,
    held: Mutex<Held>,
    refusals: Arc<Semaphore>,
}

#[derive(Default)]
struct Held {
    total: usize,
    per_address: BTreeMap<IpAddr, usize>,
    /// The oldest first.
    pending: BTreeMap<u64, Pending>,
    next: u64,
    logged_at: Option<Instant>,
    unlogged: u64,
}

struct Pending {
    address: IpAddr,
    /// Dropped when a call is accepted.
    close: oneshot::Sender<Refusal>,
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits, observer: Arc<dyn Observer>) -> Arc<Self> {
        let refusals = Arc::new(Semaphore::new(REFUSALS_UNDER_WAY));
        Arc::new(Self { limits, observer, held: Mutex::default(), refusals })
    }

    /// Takes a connection from `address`, or refuses it and returns `None`.
    pub(crate) fn admit(self: &Arc<Self>, io: Io, address: IpAddr) -> Option<Io> {
        let address = address.to_canonical();
        match self.open(address) {
            Ok((slot, closed)) => {
                let (connections, id) = (self.clone(), slot.id);
                let connection =
                    Connection::new(move || drop(connections.held().pending.remove(&id)));
                let end = async move {
                    let refusal = slot.ended(closed).await;
                    io::Error::new(io::ErrorKind::ConnectionAborted, refusal)
                };
                Some(io.until(end).of(connection))
            }
            Err(refusal) => {
                self.count(refusal, address);
                self.refuse(io, refusal);
                None
            }
        }
    }

    fn open(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<(Slot, oneshot::Receiver<Refusal>), Refusal> {
        let ConnectionLimits { total, per_address, pending, .. } = self.limits;
        let mut held = self.held();
        if held.total >= total {
            return Err(Refusal::Total(total));
        }
        let of_address = held.per_address.entry(address).or_default();
        if *of_address >= per_address {
            return Err(Refusal::Address { address, limit: per_address });
        }
        *of_address += 1;
        held.total += 1;
        let id = held.next;
        held.next += 1;
        let (close, closed) = oneshot::channel();
        held.pending.insert(id, Pending { address, close });
        let evicted = (held.pending.len() > pending).then(|| held.evict()).flatten();
        drop(held);
        if let Some(evicted) = evicted {
            let refusal = Refusal::Pending(pending);
            self.count(refusal, evicted.address);
            // The connection may have ended in the meantime.
            let _ = evicted.close.send(refusal);
        }
        Ok((Slot { connections: self.clone(), id, address }, closed))
    }

    /// Sends the reason and closes the connection, in a separate task.
    fn refuse(&self, mut io: Io, refusal: Refusal) {
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let send = async {
                io.write_all(&refusal.frames(false)).await?;
                io.shutdown().await?;
                // Closing with bytes unread resets the connection, and then the peer may never see
                // what was written.
                let mut unread = [0; 1_024];
                while io.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            };
            // The outcome does not matter: the connection is closed either way.
            drop(timeout(REFUSAL_TIMEOUT, send).await);
            drop(permit);
        });
    }

    fn count(&self, refusal: Refusal, address: IpAddr) {
        self.observer.refused(refusal);
        let mut held = self.held();
        held.unlogged += 1;
        if held.logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        held.logged_at = Some(Instant::now());
        let refused = std::mem::take(&mut held.unlogged);
        drop(held);
        tracing::warn!(%address, refused, "connections refused or closed, the last one because {refusal}");
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Removes the oldest pending connection of the address that has the most of them.
    fn evict(&mut self) -> Option<Pending> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for pending in self.pending.values() {
            *counts.entry(pending.address).or_default() += 1;
        }
        let most = counts.values().max().copied()?;
        let oldest = self.pending.iter().find(|(_, pending)| counts[&pending.address] == most);
        let id = oldest.map(|(id, _)| *id)?;
        self.pending.remove(&id)
    }
}

/// The slot of one connection; released when dropped.
struct Slot {
    connections: Arc<Connections>,
    id: u64,
    address: IpAddr,
}

impl Slot {
    /// Resolves when the connection must be closed: never once a call was accepted.
    async fn ended(self, closed: oneshot::Receiver<Refusal>) -> Refusal {
        let within = self.connections.limits.first_call_within;
        tokio::select! {
            biased;
            Ok(refusal) = closed => return refusal,
            () = sleep(within) => {}
        }
        if self.connections.held().pending.remove(&self.id).is_none() {
            // A call was accepted.
            return std::future::pending().await;
        }
        let refusal = Refusal::NoCall(within);
        self.connections.count(refusal, self.address);
        refusal
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.connections.held();
        held.total -= 1;
        held.pending.remove(&self.id);
        if let Some(of_address) = held.per_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                held.per_address.remove(&self.address);
            }
        }
    }
}

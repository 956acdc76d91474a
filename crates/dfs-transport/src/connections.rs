//! The connections that a server holds: how many, from whom, and for how long without a call.
//!
//! ```text
//!  accept ─► server or address full, none idle ─► refused
//!     └────► pending ─► the gate accepts a call ─► open ─► idle, and its place needed ─► closing
//!               │                                   └────► idle for too long ──────────────┘
//!               └─────► no call in time, or too many pending ─► cut
//! ```
//!
//! A refused or cut connection receives a GOAWAY that names the limit, so that the caller's error
//! does too. A closing one completes the calls that its client still sends, and the client connects
//! again when it needs to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::connection::{CallCounts, Connection};
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
/// Connections that may be closing at the same time, beside those that count towards the limits. A
/// peer that does not cooperate misses a keepalive, which ends its connection.
const CLOSING_MAX: usize = 64;
/// Interval of closing connections that have been idle for too long.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_mins(1);

/// Bounds on the connections of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of connections in all. At this limit a new connection takes the place of the
    /// longest idle one of the address that has the most idle ones; if none is idle, it is refused.
    pub total: usize,
    /// Maximum number of connections per peer address, behind which there may be many clients. At this
    /// limit a new connection takes the place of the longest idle one of its address.
    pub per_address: usize,
    /// Maximum number of connections on which the gate has not accepted a call yet. When there are
    /// more, the oldest one of the address that has the most of them is closed, so that a flood
    /// from one address does not affect others.
    pub pending: usize,
    /// Maximum time that a connection may stay pending.
    pub first_call_within: Duration,
    /// Time without a call in flight after which a connection is closed, within a minute.
    pub idle_for: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 1_024,
            per_address: 256,
            pending: 64,
            first_call_within: Duration::from_secs(10),
            idle_for: Duration::from_mins(15),
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
    /// The oldest first.
    connections: BTreeMap<u64, Entry>,
    next: u64,
    logged_at: Option<Instant>,
    unlogged: u64,
}

struct Entry {
    address: IpAddr,
    state: State,
    calls_in_flight: usize,
    /// When the last call ended.
    idle_since: Instant,
    /// Dropped to close the connection gracefully.
    close: Option<oneshot::Sender<Infallible>>,
}

enum State {
    /// No call was accepted yet. Sending cuts the connection.
    Pending(oneshot::Sender<Refusal>),
    Open,
    /// Ends soon, whether gracefully or not.
    Closing,
}

impl Entry {
    fn is_pending(&self) -> bool {
        matches!(self.state, State::Pending(_))
    }

    fn is_idle(&self) -> bool {
        matches!(self.state, State::Open) && self.calls_in_flight == 0
    }

    /// Returns false for a connection whose place is free already. One whose client sent a call
    /// before it learned of the end stays as long as that call.
    fn counts(&self) -> bool {
        !matches!(self.state, State::Closing) || self.calls_in_flight > 0
    }
}

/// A connection that was admitted.
pub(crate) struct Admitted {
    pub(crate) io: Io,
    /// Completes with an error when the connection must be closed gracefully, or has ended.
    pub(crate) close: oneshot::Receiver<Infallible>,
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits, observer: Arc<dyn Observer>) -> Arc<Self> {
        let refusals = Arc::new(Semaphore::new(REFUSALS_UNDER_WAY));
        Arc::new(Self { limits, observer, held: Mutex::default(), refusals })
    }

    /// Takes a connection from `address`, or refuses it and returns `None`.
    pub(crate) fn admit(self: &Arc<Self>, io: Io, address: IpAddr) -> Option<Admitted> {
        let address = address.to_canonical();
        let mut closed = Vec::new();
        let room = self.held().make_room(self.limits, address, &mut closed);
        for address in closed {
            self.count(Refusal::Displaced, address);
        }
        if let Err(refusal) = room {
            self.count(refusal, address);
            self.refuse(io, refusal);
            return None;
        }
        let ((cut, is_cut), (close, closing)) = (oneshot::channel(), oneshot::channel());
        let slot = self.open(address, cut, close);
        let connection = Connection::new(self.clone(), slot.id);
        let end = async move {
            let refusal = slot.ended(is_cut).await;
            io::Error::new(io::ErrorKind::ConnectionAborted, refusal)
        };
        Some(Admitted { io: io.until(end).of(connection), close: closing })
    }

    fn open(
        self: &Arc<Self>,
        address: IpAddr,
        cut: oneshot::Sender<Refusal>,
        close: oneshot::Sender<Infallible>,
    ) -> Slot {
        let pending_max = self.limits.pending;
        let mut held = self.held();
        let id = held.next;
        held.next += 1;
        let entry = Entry {
            address,
            state: State::Pending(cut),
            calls_in_flight: 0,
            idle_since: Instant::now(),
            close: Some(close),
        };
        held.connections.insert(id, entry);
        let pending = held.connections.values().filter(|entry| entry.is_pending()).count();
        let is_over = pending > pending_max;
        let oldest = is_over.then(|| held.first_of_most(Entry::is_pending, |_| ())).flatten();
        let refusal = Refusal::Pending(pending_max);
        let evicted = oldest.and_then(|id| held.cut(id, refusal));
        drop(held);
        if let Some(address) = evicted {
            self.count(refusal, address);
        }
        Slot { connections: self.clone(), id, address }
    }

    /// Closes connections that have been idle for too long, until dropped.
    pub(crate) async fn close_idle(&self) -> Infallible {
        let idle_for = self.limits.idle_for;
        let mut check = interval(IDLE_CHECK_INTERVAL);
        loop {
            check.tick().await;
            loop {
                let closed =
                    self.held().close_longest_idle(|entry| entry.idle_since.elapsed() >= idle_for);
                if closed.is_none() {
                    break;
                }
                self.observer.refused(Refusal::Idle(idle_for));
            }
        }
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

impl CallCounts for Connections {
    fn call_started(&self, id: u64) {
        if let Some(entry) = self.held().connections.get_mut(&id) {
            entry.calls_in_flight += 1;
        }
    }

    fn call_accepted(&self, id: u64) {
        if let Some(entry) = self.held().connections.get_mut(&id)
            && entry.is_pending()
        {
            entry.state = State::Open;
        }
    }

    fn call_ended(&self, id: u64) {
        if let Some(entry) = self.held().connections.get_mut(&id) {
            entry.calls_in_flight -= 1;
            entry.idle_since = Instant::now();
        }
    }
}

impl Held {
    /// Makes room for a connection from `address`, and adds the addresses of those that are closed
    /// for it to `closed`.
    fn make_room(
        &mut self,
        limits: ConnectionLimits,
        address: IpAddr,
        closed: &mut Vec<IpAddr>,
    ) -> Result<(), Refusal> {
        let ConnectionLimits { total, per_address, .. } = limits;
        let is_of_address = |entry: &Entry| entry.address == address;
        while self.count(is_of_address) >= per_address {
            let refusal = Refusal::Address { address, limit: per_address };
            closed.push(self.close_longest_idle(is_of_address).ok_or(refusal)?);
        }
        while self.count(|_| true) >= total {
            closed.push(self.close_longest_idle(|_| true).ok_or(Refusal::Total(total))?);
        }
        Ok(())
    }

    fn count(&self, of: impl Fn(&Entry) -> bool) -> usize {
        self.connections.values().filter(|entry| entry.counts() && of(entry)).count()
    }

    /// Closes one of the idle connections in `of`: of those of the address that has the most of
    /// them, the one that has been idle longest. Returns its address, or `None` if none is idle or
    /// too many are closing already.
    fn close_longest_idle(&mut self, of: impl Fn(&Entry) -> bool) -> Option<IpAddr> {
        let closing = self.connections.values().filter(|entry| !entry.counts()).count();
        if closing >= CLOSING_MAX {
            return None;
        }
        let is = |entry: &Entry| entry.is_idle() && of(entry);
        let id = self.first_of_most(is, |entry| entry.idle_since)?;
        let entry = self.connections.get_mut(&id)?;
        (entry.state, entry.close) = (State::Closing, None);
        Some(entry.address)
    }

    /// Cuts a connection if it is pending, and returns its address.
    fn cut(&mut self, id: u64, refusal: Refusal) -> Option<IpAddr> {
        let entry = self.connections.get_mut(&id).filter(|entry| entry.is_pending())?;
        if let State::Pending(cut) = std::mem::replace(&mut entry.state, State::Closing) {
            // The connection may have ended in the meantime.
            let _ = cut.send(refusal);
        }
        Some(entry.address)
    }

    /// Returns, of the connections in `of` whose address has the most of them, the first one by
    /// `key`, and by age.
    fn first_of_most<K: Ord>(
        &self,
        of: impl Fn(&Entry) -> bool,
        key: impl Fn(&Entry) -> K,
    ) -> Option<u64> {
        let those = || self.connections.iter().filter(|(_, entry)| of(entry));
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (_, entry) in those() {
            *counts.entry(entry.address).or_default() += 1;
        }
        let most = counts.values().max().copied()?;
        let of_most = those().filter(|(_, entry)| counts[&entry.address] == most);
        of_most.min_by_key(|(_, entry)| key(entry)).map(|(id, _)| *id)
    }
}

/// The slot of one connection; released when dropped.
struct Slot {
    connections: Arc<Connections>,
    id: u64,
    address: IpAddr,
}

impl Slot {
    /// Resolves when the connection must be cut: never once a call was accepted.
    async fn ended(self, is_cut: oneshot::Receiver<Refusal>) -> Refusal {
        let within = self.connections.limits.first_call_within;
        let refusal = Refusal::NoCall(within);
        tokio::select! {
            biased;
            Ok(refusal) = is_cut => return refusal,
            () = sleep(within) => {}
        }
        let cut = self.connections.held().cut(self.id, refusal);
        if cut.is_none() {
            // A call was accepted.
            return std::future::pending().await;
        }
        self.connections.count(refusal, self.address);
        refusal
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.held().connections.remove(&self.id);
    }
}

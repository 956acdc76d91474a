//! Sessions of chunks being written: bounded in number, expiring when idle.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_streamer::Session;
use dfs_types::SessionId;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;

use crate::{Error, Settings};

/// Maximum time that ended sessions are kept for senders that lost the reply.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// Maximum number of ended sessions kept.
const KEPT_MAX: usize = 4_096;
/// Maximum bytes in flight per sender, if memory allows; a power of two times the minimum.
const WINDOW_MAX: u32 = 4 << 20;
const WINDOW_MIN: u32 = 1 << 20;

/// Kind of sender of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Datanode,
}

/// The open sessions, and their shared limits.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    clients: Bound,
    datanodes: Bound,
    streams: Arc<Semaphore>,
    window: Arc<Semaphore>,
    window_bytes: u32,
    idle: Duration,
}

#[derive(Default)]
struct Table {
    open: BTreeMap<SessionId, Entry>,
    /// In the order of opening.
    order: VecDeque<SessionId>,
}

struct Entry {
    session: Arc<Session>,
    has_ended: Arc<AtomicBool>,
}

struct Bound {
    slots: Arc<Semaphore>,
    taken: Arc<AtomicU32>,
}

impl Bound {
    fn new(slots: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots)), taken: Arc::default() }
    }
}

/// The slot of a session being written. Released when its chunk is sealed or given up, before the
/// session is forgotten.
pub(crate) struct Slot {
    taken: Arc<AtomicU32>,
    has_ended: Arc<AtomicBool>,
    /// Bytes that the sender may have in flight.
    window: u32,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Slot {
    /// Returns the bytes that the sender may have in flight.
    pub(crate) fn window(&self) -> u64 {
        u64::from(self.window)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.has_ended.store(true, Ordering::Release);
    }
}

impl Sessions {
    pub(crate) fn new(settings: &Settings) -> Self {
        let window_bytes = u32::try_from(settings.window_bytes).unwrap_or(u32::MAX);
        Self {
            table: Mutex::default(),
            clients: Bound::new(settings.sessions),
            datanodes: Bound::new(settings.replica_sessions),
            streams: Arc::new(Semaphore::new(settings.replication_streams)),
            window: Arc::new(Semaphore::new(window_bytes as usize)),
            window_bytes,
            idle: settings.session_idle(),
        }
    }

    /// Takes a slot for a chunk and for the streams to its downstream nodes, or fails: there is no
    /// waiting, so that nodes cannot deadlock.
    pub(crate) fn take_slot(&self, sender: Sender, replicas: usize) -> Result<Slot, Error> {
        let (bound, what) = match sender {
            Sender::Client => (&self.clients, "sessions of clients"),
            Sender::Datanode => (&self.datanodes, "sessions of other datanodes"),
        };
        let busy = |what| move |_| Error::Busy(what);
        let mut permits = vec![bound.slots.clone().try_acquire_owned().map_err(busy(what))?];
        let mut window = WINDOW_MAX;
        if replicas > 0 {
            permits.push(self.take_streams(replicas)?);
        }
        if sender == Sender::Client {
            // Bytes not yet accepted downstream are held here. The fuller the buffer, the smaller
            // each window.
            let free = u32::try_from(self.window.available_permits()).unwrap_or(u32::MAX);
            while window > WINDOW_MIN && free < self.window_bytes / (WINDOW_MAX / window * 2) {
                window /= 2;
            }
            let held = self.window.clone().try_acquire_many_owned(window);
            permits.push(held.map_err(busy("bytes in flight"))?);
        }
        bound.taken.fetch_add(1, Ordering::Relaxed);
        let taken = bound.taken.clone();
        Ok(Slot { taken, has_ended: Arc::default(), window, _permits: permits })
    }

    /// Takes `count` of the streams to other nodes, or fails if too few are left.
    pub(crate) fn take_streams(&self, count: usize) -> Result<OwnedSemaphorePermit, Error> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let taken = self.streams.clone().try_acquire_many_owned(count);
        taken.map_err(|_| Error::Busy("streams to other datanodes"))
    }

    /// Adds a session, to be found by its id.
    pub(crate) fn add(&self, id: SessionId, session: Arc<Session>, has_ended: Arc<AtomicBool>) {
        let mut table = self.lock();
        table.open.insert(id, Entry { session, has_ended });
        table.order.push_back(id);
        table.forget_surplus();
    }

    /// Returns a session that is open, or ended recently.
    pub(crate) fn find(&self, id: SessionId) -> Option<Arc<Session>> {
        self.lock().open.get(&id).map(|entry| entry.session.clone())
    }

    /// Returns the number of chunks being written, for clients and for other datanodes.
    pub(crate) fn taken(&self) -> (u32, u32) {
        let read = |bound: &Bound| bound.taken.load(Ordering::Relaxed);
        (read(&self.clients), read(&self.datanodes))
    }

    /// Ends idle sessions; runs forever.
    pub(crate) async fn expire(&self) {
        let pause = (self.idle / 4).clamp(Duration::from_millis(25), Duration::from_secs(1));
        let mut ending = FuturesUnordered::new();
        let mut tick = tokio::time::interval(pause);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(()) = ending.next() => continue,
                _ = tick.tick() => {}
            }
            let kept = KEPT_FOR.min(self.idle);
            let due = |entry: &Entry| {
                let idle = entry.session.idle_for();
                idle > self.idle || (entry.has_ended.load(Ordering::Acquire) && idle > kept)
            };
            let given_up = self.lock().remove(due);
            // A session whose disk hangs must not delay the others. Waiting sessions are bounded by
            // their slots, which they still hold.
            for session in given_up {
                ending.push(async move { session.expire().await });
            }
        }
    }

    /// Ends all sessions. Takes as long as the slowest disk.
    pub(crate) async fn expire_all(&self) {
        let all = self.lock().remove(|_| true);
        join_all(all.iter().map(|session| session.expire())).await;
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Returns a flag that is set once the slot is released.
    pub(crate) fn has_ended(&self) -> Arc<AtomicBool> {
        self.has_ended.clone()
    }
}

impl Table {
    fn remove(&mut self, due: impl Fn(&Entry) -> bool) -> Vec<Arc<Session>> {
        let ids: Vec<SessionId> =
            self.open.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| *id).collect();
        let removed = ids.iter().filter_map(|id| self.open.remove(id));
        let removed = removed.map(|entry| entry.session).collect();
        self.order.retain(|id| self.open.contains_key(id));
        removed
    }

    /// Forgets the oldest ended sessions beyond the limit. Active ones are bounded by their slots.
    fn forget_surplus(&mut self) {
        for _ in 0..self.order.len() {
            if self.open.len() <= KEPT_MAX {
                return;
            }
            let Some(oldest) = self.order.pop_front() else { return };
            let has_ended =
                self.open.get(&oldest).is_none_or(|e| e.has_ended.load(Ordering::Acquire));
            if has_ended {
                self.open.remove(&oldest);
            } else {
                self.order.push_back(oldest);
            }
        }
    }
}

//! A disk in memory that crashes, fills up and fails on demand.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// A disk in memory with a power switch. Clones share the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Content as seen by reads.
    current: Vec<u8>,
    /// Content after a crash: that of the last sync, and some of the later writes.
    durable: Vec<u8>,
    /// Writes since the last sync, in order.
    unsynced: Vec<Change>,
    syncs: usize,
    /// Syncs that follow a growth.
    growths: Vec<usize>,
    has_grown: bool,
    /// The sync at which the crash happens.
    crash_at: Option<usize>,
    /// A sync that reports success and does nothing.
    ignored: Option<usize>,
    capacity: Option<u64>,
    failing: bool,
    /// Number of accesses before all fail.
    fail_after: Option<usize>,
    sync_failing: bool,
    crashed: bool,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, on: &mut Vec<u8>) {
        match self {
            Self::Length(len) => on.resize(*len as usize, 0),
            Self::Write(offset, data) => {
                let end = *offset as usize + data.len();
                if on.len() < end {
                    on.resize(end, 0);
                }
                on[*offset as usize..end].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Returns a backend on this disk, which fails once the disk crashes.
    pub(super) fn backend(&self) -> Backend {
        Backend(self.clone())
    }

    pub(super) fn syncs(&self) -> usize {
        self.lock().syncs
    }

    /// Returns the syncs that follow a growth of the disk's content.
    pub(super) fn growths(&self) -> Vec<usize> {
        self.lock().growths.clone()
    }

    pub(super) fn crash_at(&self, sync: usize) {
        self.lock().crash_at = Some(sync);
    }

    pub(super) fn ignore(&self, sync: usize) {
        self.lock().ignored = Some(sync);
    }

    /// Limits growth to this length; `None` removes the limit.
    pub(super) fn limit(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    /// Makes every access fail, or work again.
    pub(super) fn fail(&self, failing: bool) {
        let mut state = self.lock();
        state.failing = failing;
        state.fail_after = None;
    }

    /// Makes every access fail after this many.
    pub(super) fn fail_after(&self, accesses: usize) {
        self.lock().fail_after = Some(accesses);
    }

    pub(super) fn fail_syncs(&self, failing: bool) {
        self.lock().sync_failing = failing;
    }

    pub(super) fn content(&self) -> Vec<u8> {
        self.lock().current.clone()
    }

    pub(super) fn of(content: Vec<u8>) -> Self {
        let state = State { durable: content.clone(), current: content, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Returns the disk after the power is back. Unsynced writes survived where `lucky` says so.
    pub(super) fn after_crash(&self, lucky: impl Fn(usize) -> bool) -> Self {
        let state = self.lock();
        let mut durable = state.durable.clone();
        for (index, change) in state.unsynced.iter().enumerate() {
            if lucky(index) {
                change.apply(&mut durable);
            }
        }
        Self::of(durable)
    }

    pub(super) fn crashed(&self) -> bool {
        self.lock().crashed
    }
}

#[derive(Debug)]
pub(super) struct Backend(Disk);

impl Backend {
    fn enter(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.lock();
        state.fail_after = match state.fail_after {
            Some(0) => {
                state.failing = true;
                None
            }
            left => left.map(|left| left - 1),
        };
        if state.crashed || state.failing {
            return Err(io::Error::other("the disk does not answer"));
        }
        Ok(state)
    }
}

impl State {
    fn change(&mut self, change: Change) -> io::Result<()> {
        let end = match &change {
            Change::Write(offset, data) => offset + data.len() as u64,
            Change::Length(len) => *len,
        };
        let grows = end > self.current.len() as u64;
        if grows && self.capacity.is_some_and(|capacity| end > capacity) {
            return Err(ErrorKind::StorageFull.into());
        }
        self.has_grown |= grows;
        change.apply(&mut self.current);
        self.unsynced.push(change);
        Ok(())
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.enter()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.enter()?;
        let range = offset as usize..offset as usize + out.len();
        let data = state.current.get(range).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.enter()?.change(Change::Length(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.enter()?;
        if state.sync_failing {
            return Err(io::Error::other("the disk does not sync"));
        }
        state.syncs += 1;
        if std::mem::take(&mut state.has_grown) {
            let sync = state.syncs;
            state.growths.push(sync);
        }
        if state.crash_at == Some(state.syncs) {
            state.crashed = true;
            return Err(io::Error::other("power failure"));
        }
        if state.ignored == Some(state.syncs) {
            return Ok(());
        }
        let current = state.current.clone();
        state.durable = current;
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.enter()?.change(Change::Write(offset, data.to_vec()))
    }
}

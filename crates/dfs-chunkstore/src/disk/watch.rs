//! Watches the operations of a disk, so that one that hangs is noticed.
//!
//! Operations run on threads without a clock. They only say that they are running; an observer,
//! who has one, remembers when it first saw each of them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::{File, Fs, FsLock, Opening, Space};

/// Time for which a disk counts as slow after its last slow operation.
const SLOW_FOR: Duration = Duration::from_mins(1);

/// Pace of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Normal,
    /// Some operation took unusually long recently.
    Slow,
    /// Some operation has been running for so long that it may never return.
    Hung,
}

/// The running operations of a disk.
#[derive(Debug)]
pub(super) struct Watch {
    slow_after: Duration,
    hung_after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Running operations, with the time when each was first observed.
    running: BTreeMap<u64, Option<Instant>>,
    slow_until: Option<Instant>,
}

/// A running operation; ends when dropped.
struct Running<'a>(&'a Watch, u64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running.remove(&self.1);
    }
}

impl Watch {
    pub(super) fn new(slow_after: Duration, hung_after: Duration) -> Self {
        Self { slow_after, hung_after, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Running<'_> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.running.insert(number, None);
        Running(self, number)
    }

    /// Waits for something that needs the disk; `None` once an operation hangs.
    pub(super) async fn unless_hung<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        loop {
            if self.observe(Instant::now()) == Pace::Hung {
                return None;
            }
            if let Ok(result) = timeout(self.hung_after / 4, &mut what).await {
                return Some(result);
            }
        }
    }

    /// Returns the pace at `now`. Operations count from the first observation after their start.
    pub(super) fn observe(&self, now: Instant) -> Pace {
        let mut state = self.lock();
        let seen = state.running.values_mut().map(|seen| *seen.get_or_insert(now));
        let longest = seen.min().map(|oldest| now.saturating_duration_since(oldest));
        let longest = longest.unwrap_or_default();
        if longest >= self.slow_after {
            state.slow_until = Some(now + SLOW_FOR);
        }
        if longest >= self.hung_after {
            Pace::Hung
        } else if state.slow_until.is_some_and(|until| now < until) {
            Pace::Slow
        } else {
            Pace::Normal
        }
    }
}

/// A file system whose operations are watched.
pub(super) struct WatchedFs {
    inner: Arc<dyn Fs>,
    watch: Arc<Watch>,
}

struct WatchedFile {
    inner: Arc<dyn File>,
    watch: Arc<Watch>,
}

impl WatchedFs {
    pub(super) fn new(inner: Arc<dyn Fs>, watch: Arc<Watch>) -> Self {
        Self { inner, watch }
    }
}

impl Fs for WatchedFs {
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn File>> {
        let _running = self.watch.begin();
        let inner = self.inner.open(path, how)?;
        Ok(Arc::new(WatchedFile { inner, watch: Arc::clone(&self.watch) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let _running = self.watch.begin();
        self.inner.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let _running = self.watch.begin();
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _running = self.watch.begin();
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _running = self.watch.begin();
        self.inner.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let _running = self.watch.begin();
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let _running = self.watch.begin();
        self.inner.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let _running = self.watch.begin();
        self.inner.space(path)
    }
}

impl File for WatchedFile {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let _running = self.watch.begin();
        self.inner.read_at(offset, length)
    }

    fn will_read(&self, offset: u64, length: u64) {
        let _running = self.watch.begin();
        self.inner.will_read(offset, length);
    }

    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let _running = self.watch.begin();
        self.inner.write_at(offset, pieces)
    }

    fn sync(&self) -> io::Result<()> {
        let _running = self.watch.begin();
        self.inner.sync()
    }

    fn length(&self) -> io::Result<u64> {
        let _running = self.watch.begin();
        self.inner.length()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let _running = self.watch.begin();
        self.inner.set_len(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let _running = self.watch.begin();
        self.inner.punch(offset, length)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let _running = self.watch.begin();
        self.inner.next_data(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pace_follows_the_longest_operation_from_its_first_observation() {
        let watch = Watch::new(5 * SECOND, 30 * SECOND);
        let start = Instant::now();
        let at = |seconds: u32| watch.observe(start + seconds * SECOND);
        let operation = watch.begin();
        assert_eq!((at(100), at(104)), (Pace::Normal, Pace::Normal), "first seen at 100");
        let other = watch.begin();
        assert_eq!(at(105), Pace::Slow);
        drop(other);
        assert_eq!((at(129), at(130)), (Pace::Slow, Pace::Hung));
        drop(operation);
        assert_eq!((at(131), at(189)), (Pace::Slow, Pace::Slow), "for a while after it returned");
        assert_eq!(at(190), Pace::Normal);
    }
}

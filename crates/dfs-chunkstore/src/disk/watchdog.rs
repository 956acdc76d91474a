//! Watches the operations of a disk, so that one that hangs is noticed.
//!
//! Operations run on threads without a clock and only register that they are running. An observer,
//! which has a clock, records when it first saw each of them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{FsCall, FsHook, Pool};

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
    /// Where operations run. Those that wait in a stalled pool count as running.
    pool: Pool,
    slow_after: Duration,
    hung_after: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Running operations, with the time when each was first observed.
    running: BTreeMap<u64, Option<Instant>>,
    /// When the pool was first observed to be stalled.
    stalled: Option<Instant>,
    slow_until: Option<Instant>,
}

/// A running operation; ends when dropped.
pub(super) struct Running<'a>(&'a Watch, u64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running.remove(&self.1);
    }
}

impl Watch {
    pub(super) fn new(pool: Pool, slow_after: Duration, hung_after: Duration) -> Self {
        Self { pool, slow_after, hung_after, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> Running<'_> {
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
        let stalled = self.pool.is_stalled().then(|| state.stalled.unwrap_or(now));
        state.stalled = stalled;
        let seen = state.running.values_mut().map(|seen| *seen.get_or_insert(now));
        let longest = seen.chain(stalled).min().map(|oldest| now.saturating_duration_since(oldest));
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

impl FsHook for Watch {
    type Running<'a> = Running<'a>;

    fn begin(&self, _path: &Path, _call: FsCall) -> io::Result<Running<'_>> {
        Ok(self.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pace_follows_the_longest_operation_from_its_first_observation() {
        let watch = Watch::new(Pool::inline(), 5 * SECOND, 30 * SECOND);
        let start = Instant::now();
        let at = |seconds: u32| watch.observe(start + seconds * SECOND);
        let operation = watch.start();
        assert_eq!((at(100), at(104)), (Pace::Normal, Pace::Normal), "first seen at 100");
        let other = watch.start();
        assert_eq!(at(105), Pace::Slow);
        drop(other);
        assert_eq!((at(129), at(130)), (Pace::Slow, Pace::Hung));
        drop(operation);
        assert_eq!((at(131), at(189)), (Pace::Slow, Pace::Slow), "for a while after it returned");
        assert_eq!(at(190), Pace::Normal);
    }
}

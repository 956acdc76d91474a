//! How fast the scrub reads from one disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dfs_chunkstore::ReadPace;
use dfs_workers::Handle;
use tokio::time::{Instant, sleep_until};

use super::schedule::cost_of;

/// After each read the disk rests for the time that the read took, multiplied by this: the scrub
/// takes at most a quarter of the time of a disk, and less of its throughput the busier it is with
/// other reads and writes.
const REST: u32 = 3;
/// The same for a slow disk: a twentieth.
const REST_SLOW: u32 = 19;
/// Longest rest.
const REST_MAX: Duration = Duration::from_mins(1);

/// Limits the reads from one disk, besides the rate of the worker on all disks.
pub(super) struct Pace {
    handle: Arc<Handle>,
    state: Mutex<State>,
}

struct State {
    rest: u32,
    /// Beginning of the read in progress.
    began: Option<Instant>,
    rest_until: Instant,
}

impl Pace {
    pub(super) fn new(handle: &Arc<Handle>) -> Self {
        let state = State { rest: REST, began: None, rest_until: Instant::now() };
        Self { handle: Arc::clone(handle), state: Mutex::new(state) }
    }

    /// Records whether the disk is slow.
    pub(super) fn set_slow(&self, is_slow: bool) {
        self.lock().rest = if is_slow { REST_SLOW } else { REST };
    }

    /// Records that the read in progress has ended. Returns the end of the rest after it.
    pub(super) fn end_read(&self) -> Instant {
        let mut state = self.lock();
        if let Some(began) = state.began.take() {
            let rest = began.elapsed().saturating_mul(state.rest).min(REST_MAX);
            state.rest_until = Instant::now() + rest;
        }
        state.rest_until
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ReadPace for Pace {
    async fn admit(&self, bytes: u64) {
        let rested = self.end_read();
        sleep_until(rested).await;
        self.handle.take(cost_of(bytes)).await;
        self.lock().began = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use dfs_workers::{Control, Handles, Place, SCRUB};
    use tokio::time::sleep;

    use super::*;

    const READ: Duration = Duration::from_millis(100);

    /// Returns the time that ten reads take, if the disk takes [`READ`] for each.
    async fn ten_reads(pace: &Pace, bytes: u64) -> Duration {
        let began = Instant::now();
        for _ in 0..10 {
            pace.admit(bytes).await;
            sleep(READ).await;
        }
        sleep_until(pace.end_read()).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn scrub_leaves_three_quarters_of_the_time_of_a_disk_to_others() {
        let handle = Handles::new(Place::Local).of(&SCRUB);
        let pace = Pace::new(&handle);
        let took = ten_reads(&pace, 1 << 20).await;
        assert!((40..=41).contains(&(took.as_millis() / 100)), "{took:?}");
        pace.set_slow(true);
        let took = ten_reads(&pace, 1 << 20).await;
        assert!((200..=201).contains(&(took.as_millis() / 100)), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn rate_of_the_worker_limits_each_read() {
        let handle = Handles::new(Place::Local).of(&SCRUB);
        handle.set_control(Control { rate: Some(1 << 20), ..Control::default() });
        let pace = Pace::new(&handle);
        let took = ten_reads(&pace, 1 << 20).await;
        assert!((9..=11).contains(&took.as_secs()), "{took:?}");
    }
}

//! A clock that never runs ahead because the wall clock did so for a while.

use std::collections::VecDeque;
use std::time::Duration;

use dfs_types::Timestamp;
use tokio::time::Instant;

/// Observations within the time for confirmation.
const OBSERVATIONS: u32 = 32;

/// The wall clock, as far as monotonic time confirms it.
///
/// Each observation of the wall clock predicts all later times. The confirmed time is the earliest
/// prediction among the observations of the last `confirm` of monotonic time and the last one
/// before them. A jump back takes effect at once, a jump ahead once it has lasted for that long.
#[derive(Debug)]
pub(super) struct ConfirmedClock {
    confirm: Duration,
    observations: VecDeque<Observation>,
}

/// The least difference between the wall clock and monotonic time, from a moment on.
#[derive(Debug)]
struct Observation {
    at: Instant,
    /// The wall clock at that moment, in milliseconds.
    wall_ms: u64,
}

impl Observation {
    fn predict(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.at);
        self.wall_ms.saturating_add(elapsed.as_millis() as u64)
    }
}

impl ConfirmedClock {
    /// Creates a clock that takes this long to follow a jump ahead.
    pub(super) fn new(confirm: Duration) -> Self {
        Self { confirm, observations: VecDeque::new() }
    }

    /// Adds an observation and returns the confirmed time; `None` until the first observation is
    /// old enough.
    pub(super) fn observe(&mut self, wall: Timestamp, now: Instant) -> Option<Timestamp> {
        let wall_ms = wall.millis();
        let step = self.confirm / OBSERVATIONS;
        match self.observations.back_mut() {
            Some(last) if now.saturating_duration_since(last.at) < step => {
                let ahead = last.predict(now).saturating_sub(wall_ms);
                last.wall_ms = last.wall_ms.saturating_sub(ahead);
            }
            _ => self.observations.push_back(Observation { at: now, wall_ms }),
        }
        let is_old = |seen: &Observation| now.saturating_duration_since(seen.at) >= self.confirm;
        while self.observations.get(1).is_some_and(is_old) {
            self.observations.pop_front();
        }
        self.observations.front().filter(|first| is_old(first))?;
        let earliest = self.observations.iter().map(|seen| seen.predict(now)).min()?;
        Some(Timestamp::from_millis(earliest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const START: u64 = 1_700_000_000_000;

    /// A wall clock that is `ahead` seconds ahead of the truth.
    struct Simulated {
        clock: ConfirmedClock,
        start: Instant,
        elapsed: Duration,
    }

    impl Simulated {
        fn new() -> Self {
            let clock = ConfirmedClock::new(MINUTE);
            Self { clock, start: Instant::now(), elapsed: Duration::ZERO }
        }

        /// Lets time pass and returns by how many seconds the confirmed time is ahead of the truth.
        fn after(&mut self, seconds: u64, ahead: i64) -> Option<i64> {
            self.elapsed += Duration::from_secs(seconds);
            let truth = START + self.elapsed.as_millis() as u64;
            let wall = Timestamp::from_millis(truth.saturating_add_signed(ahead * 1_000));
            let confirmed = self.clock.observe(wall, self.start + self.elapsed)?;
            Some((confirmed.millis() as i64 - truth as i64) / 1_000)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_confirmed_at_the_start() {
        let mut time = Simulated::new();
        for _ in 0..59 {
            assert_eq!(time.after(1, 0), None);
        }
        assert_eq!(time.after(2, 0), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn jump_ahead_that_ends_is_never_followed() {
        for every in [1, 7, 59] {
            let mut time = Simulated::new();
            for _ in 0..100 {
                time.after(every, 0);
            }
            for _ in 0..58 / every {
                assert_eq!(time.after(every, 7_200), Some(0));
            }
            for _ in 0..100 {
                assert_eq!(time.after(every, 0), Some(0));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn jump_ahead_while_nobody_observed_is_not_followed_at_once() {
        let mut time = Simulated::new();
        time.after(1, 0);
        assert_eq!(time.after(86_400, 7_200), Some(0));
        assert_eq!(time.after(30, 7_200), Some(0));
        assert_eq!(time.after(31, 7_200), Some(7_200));
    }

    #[tokio::test(start_paused = true)]
    async fn jump_that_lasts_is_followed_and_jump_back_at_once() {
        let mut time = Simulated::new();
        for _ in 0..100 {
            time.after(1, 0);
        }
        let followed = (1..=120).position(|_| time.after(1, 7_200) == Some(7_200));
        assert!(followed.is_some_and(|seconds| (59..=64).contains(&seconds)), "{followed:?}");
        assert_eq!(time.after(1, 0), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn observations_are_bounded() {
        let mut time = Simulated::new();
        for _ in 0..10_000 {
            time.after(1, 0);
        }
        assert!(time.clock.observations.len() <= OBSERVATIONS as usize + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn zero_trusts_the_clock() {
        let mut clock = ConfirmedClock::new(Duration::ZERO);
        for wall in [5, 1_000, 3] {
            let wall = Timestamp::from_millis(wall);
            assert_eq!(clock.observe(wall, Instant::now()), Some(wall));
        }
    }
}

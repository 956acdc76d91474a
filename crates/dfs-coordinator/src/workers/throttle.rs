//! A bound on bytes in a second.

use std::time::Duration;

use tokio::time::Instant;

/// Says when the next bytes may go, so that no more than so many go in a second on average.
/// Pure: who asks passes the time in, and waits itself.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: u64,
    free_at: Instant,
}

impl Throttle {
    /// How far the average may be overdrawn at once.
    const BURST: Duration = Duration::from_secs(1);

    /// No bound when `bytes_per_second` is 0.
    pub(crate) fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second, free_at: now }
    }

    /// Books `bytes`, and says how long to wait before they may go.
    pub(crate) fn book(&mut self, bytes: u64, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let start = self.free_at.max(now);
        self.free_at = start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        start.saturating_duration_since(now).saturating_sub(Self::BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_kept() {
        let now = Instant::now();
        let mut throttle = Throttle::new(100, now);
        assert_eq!(throttle.book(100, now), Duration::ZERO);
        assert_eq!(throttle.book(100, now), Duration::ZERO);
        assert_eq!(throttle.book(100, now), Duration::from_secs(1));
        assert_eq!(throttle.book(100, now), Duration::from_secs(2));
        let later = now + Duration::from_mins(1);
        assert_eq!(throttle.book(100, later), Duration::ZERO);
    }

    #[test]
    fn zero_is_no_bound() {
        let now = Instant::now();
        let mut throttle = Throttle::new(0, now);
        assert_eq!(throttle.book(u64::MAX, now), Duration::ZERO);
        assert_eq!(throttle.book(u64::MAX, now), Duration::ZERO);
    }
}

//! How a pass is spread over its time.

use std::time::Duration;

/// Cost of a replica in bytes, besides its own: finding it takes a disk as long as reading them.
const OVERHEAD: u64 = 64 << 10;

/// How much faster a late pass reads.
const HURRY: u32 = 16;

/// What a pass reads, or has yet to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Left {
    pub(super) replicas: u64,
    pub(super) bytes: u64,
}

impl Left {
    pub(super) fn add(&mut self, length: u64) {
        self.replicas += 1;
        self.bytes = self.bytes.saturating_add(length);
    }

    pub(super) fn subtract(&mut self, length: u64) {
        self.replicas = self.replicas.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(length);
    }

    /// Returns whether this includes a replica of this length.
    pub(super) fn includes(self, length: u64) -> bool {
        self.replicas > 0 && self.bytes >= length
    }

    fn cost(self) -> u64 {
        self.bytes.saturating_add(self.replicas.saturating_mul(OVERHEAD))
    }
}

/// Returns the bytes that a replica of this length counts for.
pub(super) fn cost_of(length: u64) -> u64 {
    length.saturating_add(OVERHEAD)
}

/// Returns the time of a pass: somewhat less than `every`, so that what a pause or a restart delays
/// is still read in time.
pub(super) fn pass_time(every: Duration) -> Duration {
    every / 10 * 9
}

/// Returns the time from the beginning of one replica of this length to that of the next, such that
/// a pass of `whole`, of which `left` is to be read, ends in time. A late one reads at most
/// [`HURRY`] times as fast as if it were spread over all its time.
pub(super) fn gap(
    length: u64,
    left: Left,
    whole: Left,
    spent: Duration,
    every: Duration,
) -> Duration {
    let cost = cost_of(length);
    let share = |of: Left| cost as f64 / of.cost().max(cost) as f64;
    let time = pass_time(every);
    let evenly = time.mul_f64(share(whole));
    time.saturating_sub(spent).mul_f64(share(left)).max(evenly / HURRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const LENGTH: u64 = 64 << 20;

    fn of(replicas: u64) -> Left {
        Left { replicas, bytes: replicas * LENGTH }
    }

    #[test]
    fn gaps_spread_a_pass_over_its_time() {
        let every = 14 * DAY;
        let (whole, mut left, mut spent) = (of(1_000), of(1_000), Duration::ZERO);
        while left.replicas > 0 {
            let gap = gap(LENGTH, left, whole, spent, every);
            assert!(gap.abs_diff(pass_time(every) / 1_000) < Duration::from_secs(1), "{gap:?}");
            left.subtract(LENGTH);
            spent += gap;
        }
        assert!(spent.abs_diff(pass_time(every)) < Duration::from_mins(1), "{spent:?}");
    }

    #[test]
    fn late_pass_hurries_within_limits() {
        let every = 10 * DAY;
        let half = gap(LENGTH, of(10), of(20), pass_time(every) / 4 * 3, every);
        assert_eq!(half, pass_time(every) / 40, "twice as fast");
        let late = gap(LENGTH, of(10), of(20), every, every);
        assert_eq!(late, pass_time(every) / (20 * HURRY));
        let uncounted = gap(LENGTH, of(0), of(0), Duration::ZERO, every);
        assert_eq!(uncounted, pass_time(every), "more than was counted");
    }
}

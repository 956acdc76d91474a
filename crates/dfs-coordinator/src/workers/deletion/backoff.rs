//! Back-off of orders.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause; it doubles with each failure up to this.
const LAST: Duration = Duration::from_mins(1);

/// Nodes or disks that get no orders for a while because their last ones failed.
#[derive(Debug)]
pub(super) struct Backoffs<K>(BTreeMap<K, Backoff>);

#[derive(Debug)]
struct Backoff {
    until: Instant,
    next: Duration,
}

impl<K> Default for Backoffs<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Backoffs<K> {
    pub(super) fn is_backing_off(&self, key: &K, now: Instant) -> bool {
        self.0.get(key).is_some_and(|backoff| backoff.until > now)
    }

    /// Starts or doubles the back-off after an order that failed, and ends it after one that succeeded.
    pub(super) fn note(&mut self, key: K, has_failed: bool, now: Instant) {
        if !has_failed {
            self.0.remove(&key);
            return;
        }
        let pause = self.0.get(&key).map_or(FIRST, |backoff| backoff.next);
        self.0.insert(key, Backoff { until: now + pause, next: (pause * 2).min(LAST) });
    }

    /// Forgets those that ended long ago.
    pub(super) fn prune(&mut self, now: Instant) {
        self.0.retain(|_, backoff| backoff.until + LAST > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_up_to_a_bound_and_ends_with_a_success() {
        let mut backoffs = Backoffs::default();
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..8 {
            backoffs.note(1, true, now);
            let until = backoffs.0[&1].until;
            assert!(backoffs.is_backing_off(&1, now) && !backoffs.is_backing_off(&2, now));
            assert!(!backoffs.is_backing_off(&1, until));
            seen.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoffs.prune(now);
        assert_eq!(backoffs.0.len(), 1);
        backoffs.prune(now + LAST);
        assert_eq!(backoffs.0.len(), 0);
        backoffs.note(1, true, now);
        backoffs.note(1, false, now);
        assert!(!backoffs.is_backing_off(&1, now));
        backoffs.note(1, true, now);
        assert_eq!(backoffs.0[&1].until, now + FIRST);
    }
}

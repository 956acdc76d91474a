//! Back-off of orders.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause; doubled with each failure up to this.
const LAST: Duration = Duration::from_mins(1);

/// Nodes or disks paused after failed orders.
#[derive(Debug)]
pub(super) struct Rests<K>(BTreeMap<K, Rest>);

#[derive(Debug)]
struct Rest {
    until: Instant,
    next: Duration,
}

impl<K> Default for Rests<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Rests<K> {
    pub(super) fn is_resting(&self, who: &K, now: Instant) -> bool {
        self.0.get(who).is_some_and(|rest| rest.until > now)
    }

    /// Begins a pause after a failed order, or ends it after a successful one.
    pub(super) fn note(&mut self, who: K, has_failed: bool, now: Instant) {
        if !has_failed {
            self.0.remove(&who);
            return;
        }
        let rest = self.0.get(&who).map_or(FIRST, |rest| rest.next);
        self.0.insert(who, Rest { until: now + rest, next: (rest * 2).min(LAST) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_bound_and_end_with_a_success() {
        let mut rests = Rests::default();
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..8 {
            rests.note(1, true, now);
            let until = rests.0[&1].until;
            assert!(rests.is_resting(&1, now) && !rests.is_resting(&2, now));
            assert!(!rests.is_resting(&1, until));
            seen.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 60, 60]);
        rests.note(1, true, now);
        rests.note(1, false, now);
        assert!(!rests.is_resting(&1, now));
        rests.note(1, true, now);
        assert_eq!(rests.0[&1].until, now + FIRST);
    }
}

//! Backoff of failed reconciliations, per object.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dfs_types::Random;

/// Delay after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Maximum delay.
const LAST: Duration = Duration::from_mins(5);
/// Doublings after which [`LAST`] is reached.
const DOUBLINGS_MAX: u32 = 9;

/// Number of consecutive failures and the last message, by key.
#[derive(Debug)]
pub(crate) struct Backoff<K>(Mutex<HashMap<K, (u32, String)>>);

/// Reaction to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Delay before the next attempt.
    pub(crate) after: Duration,
    /// True if the message differs from the previous failure's.
    pub(crate) is_news: bool,
}

impl<K: Eq + Hash> Backoff<K> {
    /// Returns a backoff without failures.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Records a failure. The delay doubles each time, up to the maximum, minus up to a quarter at
    /// random.
    pub(crate) fn failed(&self, key: K, message: &str, random: &dyn Random) -> Verdict {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = failures.entry(key).or_default();
        let whole = FIRST.saturating_mul(1 << (*count).min(DOUBLINGS_MAX)).min(LAST);
        *count = count.saturating_add(1);
        let is_news = last != message;
        message.clone_into(last);
        let less = random.below(whole.as_millis() as u64 / 4 + 1);
        Verdict { after: whole.saturating_sub(Duration::from_millis(less)), is_news }
    }

    /// Resets the backoff after a success, or when the object is gone.
    pub(crate) fn clear(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl<K: Eq + Hash> Default for Backoff<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::SeededRandom;

    use super::*;

    #[test]
    fn c51_waits_grow_from_a_second_to_five_minutes() {
        let (backoff, random) = (Backoff::new(), SeededRandom::new(1));
        let waits: Vec<_> = (0..20).map(|_| backoff.failed("a", "no", &random).after).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST * 3 / 4);
        assert!(waits[19] <= LAST && waits[19] >= LAST * 3 / 4);
        assert!(waits.windows(2).take(8).all(|pair| pair[0] < pair[1]), "{waits:?}");
        assert!(backoff.failed("b", "no", &random).after <= FIRST, "each object has its own");
        backoff.clear(&"a");
        assert!(backoff.failed("a", "no", &random).after <= FIRST);
    }

    #[test]
    fn c51_repeated_error_is_news_once() {
        let (backoff, random) = (Backoff::new(), SeededRandom::new(1));
        assert!(backoff.failed("a", "no", &random).is_news);
        assert!(!backoff.failed("a", "no", &random).is_news);
        assert!(backoff.failed("a", "another", &random).is_news);
        backoff.clear(&"a");
        assert!(backoff.failed("a", "another", &random).is_news);
    }
}

//! A bound on bytes in a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Lets so many bytes pass in a second, whoever asks.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// 0 for no bound.
    bytes_per_second: u64,
    /// When what passed so far is paid off.
    paid_off: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid_off: Mutex::new(None) }
    }

    /// Waits until these bytes may pass. Cancelled, they count all the same.
    pub(crate) async fn take(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let turn = {
            let mut paid_off = self.paid_off.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = paid_off.map_or(now, |at| at.max(now));
            let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            *paid_off = Some(turn + cost);
            turn
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_their_rate() {
        let throttle = Throttle::new(1_000);
        let started = Instant::now();
        for _ in 0..11 {
            throttle.take(100).await;
        }
        assert_eq!(started.elapsed().as_millis(), 1_000);
        let free = Throttle::new(0);
        free.take(u64::MAX).await;
        assert_eq!(started.elapsed().as_millis(), 1_000);
    }
}

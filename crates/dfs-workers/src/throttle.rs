//! A limit on units per second.

use std::sync::{Mutex, PoisonError};

use std::time::Duration;

use tokio::sync::{MutexGuard, watch};
use tokio::time::{Instant, timeout};

/// Longest single wait, so that a duration cannot overflow. Callers check again afterwards.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// Limits the average number of units per second over all callers, in the order of the calls.
///
/// A call passes once the debt of earlier calls is paid off, and leaves its own units as debt to
/// the calls after it. The first one therefore passes at once, whatever its size.
#[derive(Debug)]
pub struct Throttle {
    /// Units per second; 0 for unlimited.
    rate: watch::Sender<u64>,
    /// Held by the caller whose turn is next.
    turn: tokio::sync::Mutex<()>,
    debt: Mutex<Debt>,
}

/// Units that passed and are not paid off yet.
#[derive(Debug)]
struct Debt {
    units: f64,
    at: Instant,
}

impl Throttle {
    /// Creates a throttle of `rate` units per second; 0 for unlimited.
    pub fn new(rate: u64) -> Self {
        Self {
            rate: watch::Sender::new(rate),
            turn: tokio::sync::Mutex::new(()),
            debt: Mutex::new(Debt { units: 0.0, at: Instant::now() }),
        }
    }

    /// Returns the rate in units per second; 0 for unlimited.
    pub fn rate(&self) -> u64 {
        *self.rate.borrow()
    }

    /// Changes the rate, also for waiting callers.
    pub fn set_rate(&self, rate: u64) {
        self.pay(self.rate());
        self.rate.send_if_modified(|current| std::mem::replace(current, rate) != rate);
    }

    /// Waits until `units` may pass. When cancelled, nothing has passed.
    pub async fn take(&self, units: u64) {
        let _turn = self.wait().await;
        self.owe(units as f64);
    }

    /// Lets `units` pass if they may at once. Returns whether they did.
    pub fn try_take(&self, units: u64) -> bool {
        let Ok(_turn) = self.turn.try_lock() else { return false };
        let may_pass = self.pay(self.rate()) <= 0.0;
        if may_pass {
            self.owe(units as f64);
        }
        may_pass
    }

    /// Waits until [`Self::try_take`] would succeed, if nobody else takes anything.
    pub async fn ready(&self) {
        drop(self.wait().await);
    }

    /// Takes back units that passed but were not used.
    pub fn give_back(&self, units: u64) {
        self.owe(-(units as f64));
    }

    fn owe(&self, units: f64) {
        if self.rate() > 0 {
            let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
            debt.units = (debt.units + units).max(0.0);
        }
    }

    /// Waits until the debt is paid off. Nobody else passes before the result is dropped.
    async fn wait(&self) -> MutexGuard<'_, ()> {
        let turn = self.turn.lock().await;
        let mut changes = self.rate.subscribe();
        loop {
            let rate = *changes.borrow_and_update();
            let left = self.pay(rate);
            if left <= 0.0 {
                return turn;
            }
            let wait = (left / rate as f64).min(WAIT_MAX.as_secs_f64());
            // Rounded up, so that the debt is paid when the timer fires.
            let wait = Duration::from_secs_f64(wait) + Duration::from_nanos(1);
            let _ = timeout(wait, changes.changed()).await;
        }
    }

    /// Pays off the time since the last payment, and returns the rest.
    fn pay(&self, rate: u64) -> f64 {
        let now = Instant::now();
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(debt.at).as_secs_f64();
        let paid = if rate == 0 { f64::INFINITY } else { elapsed * rate as f64 };
        *debt = Debt { units: (debt.units - paid).max(0.0), at: now };
        debt.units
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn units_pass_at_the_rate() {
        let throttle = Throttle::new(1_000);
        let started = Instant::now();
        for _ in 0..11 {
            throttle.take(100).await;
        }
        let took = started.elapsed();
        assert!((1_000..=1_012).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn zero_is_unlimited() {
        let throttle = Throttle::new(0);
        let started = Instant::now();
        throttle.take(u64::MAX).await;
        throttle.take(u64::MAX).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn new_rate_applies_to_waiting_callers() {
        let throttle = Arc::new(Throttle::new(1));
        throttle.take(1 << 40).await;
        let started = Instant::now();
        let waiting = tokio::spawn({
            let throttle = throttle.clone();
            async move { throttle.take(1).await }
        });
        tokio::time::sleep(Duration::from_secs(10)).await;
        throttle.set_rate(0);
        waiting.await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn units_that_are_given_back_delay_nobody() {
        let throttle = Throttle::new(100);
        assert!(throttle.try_take(1_000));
        assert!(!throttle.try_take(1));
        throttle.give_back(900);
        let started = Instant::now();
        throttle.ready().await;
        assert_eq!(started.elapsed().as_secs(), 1);
        throttle.give_back(1 << 40);
        assert!(throttle.try_take(100));
        throttle.ready().await;
        assert_eq!(started.elapsed().as_secs(), 2, "no credit is saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_caller_takes_nothing() {
        let throttle = Throttle::new(100);
        throttle.take(100).await;
        let started = Instant::now();
        assert!(timeout(Duration::from_millis(10), throttle.take(1 << 30)).await.is_err());
        throttle.take(1).await;
        assert_eq!(started.elapsed().as_secs(), 1);
    }
}

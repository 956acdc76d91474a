//! The order to stop, and stopping in bounded time.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells whether the process, or a part of it, shall stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Gives the order to stop. Dropping it gives the order too.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Gives the order. Further calls do nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// A shutdown that its trigger alone orders.
    pub fn new() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// A shutdown that SIGTERM or SIGINT orders. The second of them ends the process at once, with
    /// the status a shell gives a process that the signal killed.
    pub fn on_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (trigger, shutdown) = Self::new();
        tokio::spawn(async move {
            loop {
                let kind = tokio::select! {
                    biased;
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = interrupt.recv() => SignalKind::interrupt(),
                };
                if *trigger.0.borrow() {
                    std::process::exit(128 + kind.as_raw_value());
                }
                tracing::info!(signal = kind.as_raw_value(), "stopping; once more stops at once");
                trigger.stop();
            }
        });
        Ok(shutdown)
    }

    /// Whether the order was given.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the order. Cancel-safe.
    pub async fn requested(&self) {
        // An error says that the trigger is gone, which is the order as well.
        let _ = self.0.clone().wait_for(|is_requested| *is_requested).await;
    }
}

/// Runs `service`, which listens to `shutdown` itself, and gives it up when it still runs `grace`
/// after the order: `None` then. What it has not finished is cut off as by a crash.
pub async fn within<T>(
    shutdown: &Shutdown,
    grace: Duration,
    service: impl Future<Output = T>,
) -> Option<T> {
    let overdue = async {
        shutdown.requested().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        result = service => Some(result),
        () = overdue => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn the_order_reaches_every_clone() {
        let (trigger, shutdown) = Shutdown::new();
        let other = shutdown.clone();
        assert!(!shutdown.is_requested());
        trigger.stop();
        trigger.stop();
        shutdown.requested().await;
        other.requested().await;
        assert!(shutdown.is_requested() && other.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_trigger_is_an_order() {
        let (trigger, shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_ends_in_time_is_waited_for() {
        let (trigger, shutdown) = Shutdown::new();
        trigger.stop();
        let service = async {
            tokio::time::sleep(Duration::from_secs(29)).await;
            7
        };
        assert_eq!(within(&shutdown, GRACE, service).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_is_given_up() {
        let (trigger, shutdown) = Shutdown::new();
        trigger.stop();
        let start = tokio::time::Instant::now();
        assert_eq!(within(&shutdown, GRACE, std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed(), GRACE);
    }

    #[tokio::test]
    async fn a_signal_is_an_order() {
        let shutdown = Shutdown::on_signals().unwrap();
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::TERM).unwrap();
        tokio::time::timeout(GRACE, shutdown.requested()).await.unwrap();
    }
}

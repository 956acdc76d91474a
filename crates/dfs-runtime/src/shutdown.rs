//! Shutdown requests, and stopping in bounded time.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Shutdown request of the process, or of a part of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Requests a shutdown. So does dropping it.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Requests the shutdown. Idempotent.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns a shutdown requested only by its trigger.
    pub fn new() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// Returns a shutdown requested by SIGTERM or SIGINT. The second signal exits at once, with the
    /// status that a shell reports for a process killed by the signal.
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
                tracing::info!(
                    signal = kind.as_raw_value(),
                    "stopping; a second signal exits at once"
                );
                trigger.stop();
            }
        });
        Ok(shutdown)
    }

    /// Returns true once the shutdown is requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the request. Cancel-safe.
    pub async fn requested(&self) {
        // An error means that the trigger was dropped, which is a request too.
        let _ = self.0.clone().wait_for(|is_requested| *is_requested).await;
    }
}

/// Runs `service`, which observes `shutdown` itself, and drops it if it still runs `grace` after
/// the request; returns `None` then. Unfinished work is cut off as in a crash.
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
    async fn request_reaches_every_clone() {
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
    async fn dropped_trigger_requests_shutdown() {
        let (trigger, shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn service_that_ends_in_time_is_waited_for() {
        let (trigger, shutdown) = Shutdown::new();
        trigger.stop();
        let service = async {
            tokio::time::sleep(Duration::from_secs(29)).await;
            7
        };
        assert_eq!(within(&shutdown, GRACE, service).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_service_is_dropped() {
        let (trigger, shutdown) = Shutdown::new();
        trigger.stop();
        let start = tokio::time::Instant::now();
        assert_eq!(within(&shutdown, GRACE, std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed(), GRACE);
    }

    #[tokio::test]
    async fn signal_requests_shutdown() {
        let shutdown = Shutdown::on_signals().unwrap();
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::TERM).unwrap();
        tokio::time::timeout(GRACE, shutdown.requested()).await.unwrap();
    }
}

//! Runs the workers while, and only while, this coordinator holds the worker lease.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_metadata::engine::{Engine, LeaseGrant};
use dfs_types::with_causes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::{Next, WORKER_LEASE, Worker};

/// Waits between the steps of a worker that failed, doubled each time up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Whether this coordinator holds the lease, for those who watch.
#[derive(Debug, Default)]
pub(crate) struct LeaseState(Mutex<Option<LeaseGrant>>);

impl LeaseState {
    /// The grant, while it is held.
    pub(crate) fn grant(&self) -> Option<LeaseGrant> {
        *crate::lock(&self.0)
    }

    fn set(&self, grant: Option<LeaseGrant>) {
        *crate::lock(&self.0) = grant;
    }
}

/// Takes and renews the worker lease, and runs what `make` makes in between.
pub(crate) struct Supervisor<F> {
    pub(crate) engine: Arc<dyn Engine>,
    /// Who holds the lease: the address others reach this coordinator at.
    pub(crate) holder: String,
    pub(crate) ttl: Duration,
    pub(crate) state: Arc<LeaseState>,
    /// Makes the workers, fresh for each time the lease is taken.
    pub(crate) make: F,
}

impl<F: Fn() -> Vec<Box<dyn Worker>>> Supervisor<F> {
    /// Runs until dropped.
    pub(crate) async fn run(self) {
        loop {
            let asked = Instant::now();
            match self.engine.lease(WORKER_LEASE, &self.holder, self.ttl).await {
                Ok(Some(grant)) => {
                    info!(epoch = grant.epoch.0, "holds the worker lease");
                    self.state.set(Some(grant));
                    let workers = join_all((self.make)().into_iter().map(|w| drive(w, grant)));
                    tokio::select! {
                        biased;
                        () = self.renew(grant, asked) => {}
                        _ = workers => {}
                    }
                    self.state.set(None);
                    warn!(epoch = grant.epoch.0, "lost the worker lease; background work stops");
                }
                Ok(None) => {}
                Err(error) => warn!(%error, "cannot ask for the worker lease"),
            }
            sleep(self.ttl / 3).await;
        }
    }

    /// Renews the lease; returns once it is lost, or may be.
    async fn renew(&self, grant: LeaseGrant, mut renewed: Instant) {
        loop {
            sleep(self.ttl / 3).await;
            let asked = Instant::now();
            let until = renewed + self.ttl;
            let answer =
                timeout_at(until, self.engine.lease(WORKER_LEASE, &self.holder, self.ttl)).await;
            match answer {
                Ok(Ok(Some(again))) if again.epoch == grant.epoch => renewed = asked,
                Ok(Ok(_)) | Err(_) => return,
                Ok(Err(error)) => warn!(%error, "cannot renew the worker lease"),
            }
            if Instant::now() >= until {
                return;
            }
        }
    }
}

/// Steps a worker for ever.
async fn drive(mut worker: Box<dyn Worker>, grant: LeaseGrant) {
    let mut back_off = BACK_OFF.0;
    loop {
        match worker.step(&grant).await {
            Ok(next) => {
                back_off = BACK_OFF.0;
                match next {
                    Next::Again => tokio::task::yield_now().await,
                    Next::After(wait) => sleep(wait).await,
                }
            }
            Err(error) => {
                let name = worker.progress().name();
                warn!(
                    worker = name,
                    error = with_causes(&error),
                    "a step of background work failed"
                );
                worker.progress().add_failed(1);
                worker.progress().set_state(format!("waits after an error: {error}"));
                sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}

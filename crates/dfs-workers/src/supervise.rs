//! Runs the workers of the cluster while, and only while, this process holds their lease.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::with_causes;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use crate::{Control, Handles};

/// A worker that runs until it is dropped.
pub type Running = BoxFuture<'static, Infallible>;

/// The lease of a cluster's workers, and the administrators' settings.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Proof of a granted lease. Equal as long as nobody else held the lease in between.
    type Grant: Copy + PartialEq + Send + Sync;

    /// Why a request failed.
    type Error: Error + Send + Sync + 'static;

    /// Returns how long it is held after a granted request.
    fn ttl(&self) -> Duration;

    /// Takes or renews it; `None` while another holds it.
    async fn request(&self) -> Result<Option<Self::Grant>, Self::Error>;

    /// Reads the settings of all workers by name. Bounded.
    async fn controls(&self) -> Result<Vec<(String, Control)>, Self::Error>;

    /// Called once the lease is held and the settings are known, and with `None` once it is lost.
    fn set_grant(&self, grant: Option<Self::Grant>);
}

/// Takes and renews the lease, and runs the workers of `start` while it is held. Runs until
/// dropped.
///
/// Nothing starts before the settings are read: a pause survives a change of the holder.
pub async fn supervise<L: Lease>(
    lease: &L,
    handles: &Handles,
    start: impl Fn(L::Grant) -> Vec<Running> + Sync,
) -> Infallible {
    loop {
        let asked = Instant::now();
        match lease.request().await {
            Ok(Some(grant)) => {
                let work = async {
                    read_controls(lease, handles).await;
                    lease.set_grant(Some(grant));
                    join_all(start(grant)).await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    () = renew(lease, grant, asked) => {}
                    () = work => {}
                }
                lease.set_grant(None);
                warn!("lost the worker lease; stopping its workers");
            }
            Ok(None) => {}
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "cannot request the worker lease");
            }
        }
        sleep(lease.ttl() / 3).await;
    }
}

/// Renews the lease; returns once it is, or may be, lost.
async fn renew<L: Lease>(lease: &L, grant: L::Grant, mut renewed: Instant) {
    loop {
        sleep(lease.ttl() / 3).await;
        let asked = Instant::now();
        let until = renewed + lease.ttl();
        match timeout_at(until, lease.request()).await {
            Ok(Ok(Some(again))) if again == grant => renewed = asked,
            Ok(Ok(_)) | Err(_) => return,
            Ok(Err(error)) => {
                let error = with_causes(&error);
                warn!(error, "cannot renew the worker lease");
            }
        }
        if Instant::now() >= until {
            return;
        }
    }
}

/// Reads the settings, retrying until it succeeds.
async fn read_controls<L: Lease>(lease: &L, handles: &Handles) {
    let controls = loop {
        match lease.controls().await {
            Ok(controls) => break controls,
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "cannot read the settings of the workers, which wait for them");
                sleep(lease.ttl() / 3).await;
            }
        }
    };
    for handle in handles.iter() {
        let set = controls.iter().find(|(name, _)| name == handle.spec().name);
        handle.set_control(set.map(|(_, control)| *control).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;

//! Runs the workers of the cluster while, and only while, this process holds their lease.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use dfs_types::with_causes;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::{Control, Handles};

/// A worker that runs until it is dropped.
pub type Running = BoxFuture<'static, Infallible>;

/// The lease that the workers of a cluster run under, and what administrators set for them.
#[async_trait]
pub trait Lease: Send + Sync {
    /// What its holder gets. Equal as long as nobody else had the lease in between.
    type Grant: Copy + PartialEq + Send + Sync;

    /// Why it cannot be asked for.
    type Error: Error + Send + Sync + 'static;

    /// How long it is held after a request that was granted.
    fn ttl(&self) -> Duration;

    /// Takes or renews it; `None` while another holds it.
    async fn request(&self) -> Result<Option<Self::Grant>, Self::Error>;

    /// Reads what administrators set, by the name of the worker. Bounded.
    async fn controls(&self) -> Result<Vec<(String, Control)>, Self::Error>;

    /// Called when the lease is held and the controls are known, and with `None` once it is lost.
    fn set_grant(&self, grant: Option<Self::Grant>);
}

/// Takes and renews the lease, and runs what `start` starts in between. Runs until dropped.
///
/// Nothing starts before the controls are read: a pause survives a change of the holder.
pub async fn supervise<L: Lease>(
    lease: &L,
    handles: &Handles,
    start: impl Fn(L::Grant) -> Vec<Running> + Sync,
) -> Infallible {
    loop {
        let asked = Instant::now();
        match lease.request().await {
            Ok(Some(grant)) => {
                info!("holds the worker lease");
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
                warn!("lost the worker lease; its workers stop");
            }
            Ok(None) => {}
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "cannot ask for the worker lease");
            }
        }
        sleep(lease.ttl() / 3).await;
    }
}

/// Renews the lease; returns once it is lost, or may be.
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

/// Takes over what administrators set, as soon as it can be read.
async fn read_controls<L: Lease>(lease: &L, handles: &Handles) {
    let controls = loop {
        match lease.controls().await {
            Ok(controls) => break controls,
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "cannot read the controls of the workers, which wait for them");
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

//! Leader election: of several operators, the holder of the Lease acts.
//!
//! Every write carries the resource version of the Lease that was read, so one of two concurrent
//! writers is refused. A holder counts as gone by how long the Lease has not changed on the
//! observer's own clock; clocks of two machines are never compared.

use std::time::Duration;

use dfs_runtime::Readiness;
use dfs_types::{OsRandom, Random as _};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout_at};

use crate::FIELD_MANAGER;

/// Time after which a Lease that is not renewed expires.
const DURATION: Duration = Duration::from_secs(15);
/// Time that a holder that cannot renew keeps acting; shorter, so that it has stopped before
/// another starts.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Interval between renewals.
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// Interval between reads of a Lease that another holds, and after a failed renewal.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// Time limit of releasing it.
const RELEASE_DEADLINE: Duration = Duration::from_secs(3);

/// Why the Lease is no longer held.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Another took it.
    #[error("the lease is now held by {0:?}")]
    Taken(String),
    /// Renewing failed for too long.
    #[error("the lease could not be renewed for {} s", RENEW_DEADLINE.as_secs())]
    NotRenewed(#[source] Option<kube::Error>),
}

/// A candidate for the Lease.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The Lease as last renewed by another, and when that was first seen.
    seen: Option<(LeaseSpec, Instant)>,
    held: Option<Lease>,
}

impl Election {
    /// Creates a candidate `identity` for the Lease `name`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
            held: None,
        }
    }

    /// Waits until the Lease is held; ready once the Lease was seen. Failures are logged and
    /// retried. Cancel-safe, except that a Lease just taken must expire by itself.
    pub async fn acquire(&mut self, readiness: &Readiness) {
        let mut reported = None;
        loop {
            match self.attempt().await {
                Ok(None) => return,
                Ok(Some(holder)) => {
                    readiness.ready();
                    if reported.as_ref() != Some(&holder) {
                        tracing::info!(%holder, "another operator holds the lease; waiting");
                        reported = Some(holder);
                    }
                }
                Err(error) => tracing::warn!(%error, lease = self.name, "cannot reach the lease"),
            }
            sleep(jittered(RETRY_EVERY)).await;
        }
    }

    /// Renews the Lease until it is lost, and returns why. Cancel-safe.
    pub async fn hold(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            sleep(RENEW_EVERY).await;
            let deadline = renewed + RENEW_DEADLINE;
            let mut last = None;
            loop {
                match timeout_at(deadline, self.attempt()).await {
                    Ok(Ok(None)) => break renewed = Instant::now(),
                    Ok(Ok(Some(holder))) => return Lost::Taken(holder),
                    Ok(Err(error)) => last = Some(error),
                    Err(_) => return Lost::NotRenewed(last),
                }
                if Instant::now() + RETRY_EVERY >= deadline {
                    return Lost::NotRenewed(last);
                }
                sleep(RETRY_EVERY).await;
            }
        }
    }

    /// Releases the Lease, so that the next holder need not wait for it to expire. Does nothing if
    /// it is not held.
    pub async fn release(&mut self) {
        let Some(mut lease) = self.held.take() else { return };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.renew_time = Some(now());
        let released = timeout_at(Instant::now() + RELEASE_DEADLINE, self.replace(&lease)).await;
        match released {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "lease released"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot release the lease; it will expire"),
            Err(_) => tracing::warn!("cannot release the lease in time; it will expire"),
        }
    }

    /// Acquires or renews the Lease; otherwise returns its holder.
    async fn attempt(&mut self) -> kube::Result<Option<String>> {
        self.held = None;
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let made = self.api.create(&params(), &self.first()).await;
            return self.settle(made, "its creator");
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let is_ours = holder == self.identity;
        if !is_ours && !holder.is_empty() && !self.is_over(&spec) {
            return Ok(Some(holder));
        }
        let replaced = self.replace(&self.next(lease, is_ours)).await;
        self.settle(replaced, &holder)
    }

    /// A refused write is a result: another candidate was faster.
    fn settle(
        &mut self,
        written: kube::Result<Lease>,
        other: &str,
    ) -> kube::Result<Option<String>> {
        match written {
            Ok(lease) => {
                self.held = Some(lease);
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Some(other.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the holder has not renewed for the duration that the Lease states.
    fn is_over(&mut self, spec: &LeaseSpec) -> bool {
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                return false;
            }
        };
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        since.elapsed() >= duration.map_or(DURATION, Duration::from_secs)
    }

    fn first(&self) -> Lease {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        self.next(Lease { metadata, spec: None }, false)
    }

    fn next(&self, mut lease: Lease, is_ours: bool) -> Lease {
        lease.metadata.managed_fields = None;
        let spec = lease.spec.get_or_insert_default();
        if !is_ours {
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count + 1));
            spec.acquire_time = Some(now());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
        spec.renew_time = Some(now());
        lease
    }

    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        self.api.replace(&self.name, &params(), lease).await
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

/// Adds up to a fifth, so that candidates do not act in lockstep.
fn jittered(duration: Duration) -> Duration {
    duration + Duration::from_millis(OsRandom.below(duration.as_millis() as u64 / 5))
}

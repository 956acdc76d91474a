//! Listing and setting background workers.

use std::time::Duration;

use dfs_metadata::namespace::WorkerChange;
use dfs_proto::v1::set_worker_request::Change;
use dfs_proto::{Failure, FieldError, v1};
use dfs_transport::Caller;
use dfs_types::ErrorCode;
use dfs_workers::{Activity, Handle, Place, Unit};
use tracing::info;

use super::admin::check_cluster;
use super::{holder, scrub};
use crate::core::Core;
use crate::failure;
use crate::workers::{WORKER_LEASE, control};

/// Retry hint while no coordinator holds the worker lease.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Lists the workers, as known to the holder of their lease.
pub(super) async fn list(
    core: &Core,
    (_, mut request): (Caller, v1::WorkersRequest),
) -> Result<v1::WorkersResponse, Failure> {
    let is_holder = core.background.lease.grant().is_some();
    let is_relayed = core.is_from_peer(&mut request)?;
    if !is_holder && !is_relayed {
        let request = core.peer_order(request);
        let relayed = holder::call(core, async move |mut admin| admin.workers(request).await).await;
        if let Some(Ok(workers)) = relayed {
            return Ok(workers);
        }
    }
    Ok(v1::WorkersResponse {
        workers: statuses(core),
        lease_holder: core.background.lease_holder(),
    })
}

/// Changes the settings of a worker; executed by the holder of the lease, where they take effect at
/// once. The gate of the coordinator that was called has checked the caller; the holder sees a
/// coordinator instead, whose sealed order vouches for that check.
pub(super) async fn set(
    core: &Core,
    (caller, mut request): (Caller, v1::SetWorkerRequest),
) -> Result<v1::SetWorkerResponse, Failure> {
    let is_relayed = core.is_from_peer(&mut request)?;
    check_cluster(core, &request.cluster_id)?;
    let change = change(request.change)?;
    let worker = core.background.workers.get(&request.name).ok_or_else(|| {
        let known: Vec<_> = core.background.workers.iter().map(|w| w.spec().name).collect();
        let what = format_args!("no worker has this name; there are {}", known.join(", "));
        FieldError::new("name", what)
    })?;
    if change == WorkerChange::Start && worker.spec().place != Place::Local {
        let what = "only the scrub can be started; other workers run all the time";
        return Err(FieldError::new("change", what).into());
    }
    let Some(grant) = core.background.lease.grant() else {
        if is_relayed {
            return Err(no_holder());
        }
        let request = core.peer_order(request);
        let set = holder::call(core, async move |mut admin| admin.set_worker(request).await).await;
        return set.unwrap_or_else(|| Err(no_holder()));
    };
    let _setting = core.background.setting.lock().await;
    let fence = grant.fence(WORKER_LEASE);
    let stored =
        core.namespace.set_worker(&caller.scope(), worker.spec().name, change, Some(&fence)).await;
    let stored = match stored {
        Err(dfs_metadata::Error::LeaseLost) => return Err(no_holder()),
        stored => stored.map_err(|error| failure::of(&error))?,
    };
    worker.set_control(control(core, &stored));
    info!(worker = worker.spec().name, ?change, "the settings of a worker were changed");
    Ok(v1::SetWorkerResponse { worker: Some(status(core, worker)) })
}

/// Returns the workers of this coordinator.
pub(super) fn statuses(core: &Core) -> Vec<v1::WorkerStatus> {
    core.background.workers.iter().map(|worker| status(core, worker)).collect()
}

/// Returns the status of a worker; of one on datanodes, as they reported it last.
fn status(core: &Core, worker: &Handle) -> v1::WorkerStatus {
    match worker.spec().place {
        Place::Lease => status_here(worker),
        Place::Local => scrub::status(core, status_here(worker)),
    }
}

fn status_here(worker: &Handle) -> v1::WorkerStatus {
    let budget = worker.spec().budget;
    let activity = match worker.activity() {
        Activity::Stopped => v1::WorkerActivity::Stopped,
        Activity::Running => v1::WorkerActivity::Running,
        Activity::Paused => v1::WorkerActivity::Paused,
        Activity::BackingOff => v1::WorkerActivity::BackingOff,
    };
    let unit = match budget.unit {
        Unit::Bytes => v1::WorkerUnit::Bytes,
        Unit::Items => v1::WorkerUnit::Items,
    };
    v1::WorkerStatus {
        name: worker.spec().name.to_owned(),
        state: worker.detail(),
        done: worker.done(),
        failed: worker.failed(),
        queued: worker.queued(),
        activity: activity.into(),
        unit: unit.into(),
        rate: worker.rate(),
        budget: budget.per_second,
        pause_left_ms: worker.pause_left().map(|left| left.as_millis() as u64),
    }
}

fn change(change: Option<Change>) -> Result<WorkerChange, FieldError> {
    match change {
        Some(Change::PauseMs(millis)) => Ok(WorkerChange::Pause(Duration::from_millis(millis))),
        Some(Change::Rate(v1::WorkerRate { per_second })) => Ok(WorkerChange::Rate(per_second)),
        Some(Change::Start(v1::WorkerStart {})) => Ok(WorkerChange::Start),
        None => Err(FieldError::new("change", "is not set")),
    }
}

pub(super) fn no_holder() -> Failure {
    let message = "no responsive coordinator holds the worker lease at the moment; try again";
    Failure::new(ErrorCode::Unavailable, message).retry_after(RETRY_AFTER)
}

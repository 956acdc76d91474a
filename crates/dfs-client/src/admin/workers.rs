//! The background workers of a cluster.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::set_worker_request::Change;
use dfs_proto::wire::{self, FieldError, WireId as _};
use dfs_types::ClusterId;

use super::Admin;
use crate::Error;

/// The background workers and their lease holder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workers {
    /// Address of the coordinator that runs them; `None` when unknown. In that case the figures are
    /// those of the replying coordinator.
    pub lease_holder: Option<String>,
    /// Every background worker.
    pub workers: Vec<WorkerStatus>,
}

/// Status of a background worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Name of the worker.
    pub name: String,
    /// Current activity.
    pub activity: WorkerActivity,
    /// Current work, or why the last step failed.
    pub state: String,
    /// Items done since its coordinator started; for `scrub`, replicas read in the current passes.
    pub done: u64,
    /// Items and steps that failed since its coordinator started; for `scrub`, replicas found bad,
    /// absent or unreadable in the current passes.
    pub failed: u64,
    /// Items known to be waiting.
    pub queued: u64,
    /// Unit of its rate.
    pub unit: WorkerUnit,
    /// Average units per second that it may use; `None` for no limit.
    pub rate: Option<u64>,
    /// Default rate in units per second; `None` for no limit.
    pub budget: Option<u64>,
    /// Time until its pause ends by itself; `None` when not paused.
    pub pause_left: Option<Duration>,
}

/// Activity of a background worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerActivity {
    /// Not run by the coordinator that replied.
    Stopped,
    /// Working, or waiting for work.
    Running,
    /// Paused by an administrator.
    Paused,
    /// Waiting after a failed step.
    BackingOff,
}

impl WorkerActivity {
    /// Returns the name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::BackingOff => "backing-off",
        }
    }
}

/// Unit of a worker's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerUnit {
    /// Bytes read, moved or written.
    Bytes,
    /// Files, replicas, records.
    Items,
}

impl WorkerUnit {
    /// Returns the name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Items => "items",
        }
    }
}

/// A change of one setting of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerChange {
    /// Pauses the worker from now on for this long, at most 7 days.
    Pause(Duration),
    /// Ends the pause.
    Resume,
    /// Sets the rate in units per second; `None` for no limit.
    Rate(Option<u64>),
    /// Restores the default rate.
    DefaultRate,
    /// Does everything at once, at its rate, and starts over if it has begun; only for `scrub`.
    Start,
}

impl Admin {
    /// Returns the background workers as the lease holder reports them.
    pub async fn workers(&self) -> Result<Workers, Error> {
        let context = "background workers";
        let request = v1::WorkersRequest::default();
        let reply = self.call(context, request, |mut admin, request| async move {
            admin.workers(request).await
        });
        let v1::WorkersResponse { workers, lease_holder } = reply.await?;
        let workers = workers.into_iter().map(WorkerStatus::from_wire).collect::<Result<_, _>>();
        Ok(Workers {
            lease_holder: (!lease_holder.is_empty()).then_some(lease_holder),
            workers: workers.map_err(|error| Error::wire(context, &error))?,
        })
    }

    /// Changes a setting of a worker, and returns its new status. Takes effect at once, and
    /// survives restarts and changes of the lease holder. `INVALID_ARGUMENT` when no worker has
    /// this name; the message lists the existing ones.
    pub async fn set_worker(
        &self,
        cluster: ClusterId,
        name: &str,
        change: WorkerChange,
    ) -> Result<WorkerStatus, Error> {
        let rate = |per_second| Change::Rate(v1::WorkerRate { per_second });
        let change = match change {
            WorkerChange::Pause(time) => {
                Change::PauseMs(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
            WorkerChange::Resume => Change::PauseMs(0),
            WorkerChange::Rate(per_second) => rate(Some(per_second.unwrap_or(0))),
            WorkerChange::DefaultRate => rate(None),
            WorkerChange::Start => Change::Start(v1::WorkerStart {}),
        };
        let context = format!("set worker {name}");
        let request = v1::SetWorkerRequest {
            cluster_id: cluster.to_wire(),
            name: name.to_owned(),
            change: Some(change),
            order: None,
        };
        let reply = self.call(&context, request, |mut admin, request| async move {
            admin.set_worker(request).await
        });
        let worker = wire::required("worker", reply.await?.worker);
        worker.and_then(WorkerStatus::from_wire).map_err(|error| Error::wire(&context, &error))
    }
}

impl WorkerStatus {
    /// Creates the status of a stopped worker without any work.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            activity: WorkerActivity::Stopped,
            state: String::new(),
            done: 0,
            failed: 0,
            queued: 0,
            unit: WorkerUnit::Items,
            rate: None,
            budget: None,
            pause_left: None,
        }
    }

    pub(super) fn from_wire(worker: v1::WorkerStatus) -> Result<Self, FieldError> {
        let activity = match worker.activity() {
            v1::WorkerActivity::Stopped => WorkerActivity::Stopped,
            v1::WorkerActivity::Running => WorkerActivity::Running,
            v1::WorkerActivity::Paused => WorkerActivity::Paused,
            v1::WorkerActivity::BackingOff => WorkerActivity::BackingOff,
            v1::WorkerActivity::Unspecified => {
                return Err(FieldError::new("activity", "is not known"));
            }
        };
        let unit = match worker.unit() {
            v1::WorkerUnit::Bytes => WorkerUnit::Bytes,
            v1::WorkerUnit::Items => WorkerUnit::Items,
            v1::WorkerUnit::Unspecified => return Err(FieldError::new("unit", "is not known")),
        };
        let bound = |rate: u64| (rate > 0).then_some(rate);
        Ok(Self {
            name: worker.name,
            activity,
            state: worker.state,
            done: worker.done,
            failed: worker.failed,
            queued: worker.queued,
            unit,
            rate: bound(worker.rate),
            budget: bound(worker.budget),
            pause_left: worker.pause_left_ms.map(Duration::from_millis),
        })
    }
}

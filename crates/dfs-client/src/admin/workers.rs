//! The background workers of a cluster.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::set_worker_request::Change;
use dfs_proto::wire::{self, FieldError, WireId as _};
use dfs_types::ClusterId;

use super::Admin;
use crate::Error;

/// The background workers, and who runs them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workers {
    /// Address of the coordinator that runs them; `None` when none is known. Then the figures are
    /// those of the coordinator that answered.
    pub lease_holder: Option<String>,
    /// All that there are.
    pub workers: Vec<WorkerStatus>,
}

/// Status of a background worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub activity: WorkerActivity,
    /// What it is doing, or why its last step failed.
    pub state: String,
    /// Things done since its coordinator started.
    pub done: u64,
    /// Things and steps that failed since its coordinator started.
    pub failed: u64,
    /// Things known to wait.
    pub queued: u64,
    /// What its rate counts.
    pub unit: WorkerUnit,
    /// Units a second that it may use on average; `None` for no bound.
    pub rate: Option<u64>,
    /// Units a second unless another rate is set; `None` for no bound.
    pub budget: Option<u64>,
    /// Time until its pause ends by itself; `None` when it is not paused.
    pub pause_left: Option<Duration>,
}

/// Whether a background worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerActivity {
    /// The coordinator that answered does not run it.
    Stopped,
    /// It works, or waits for work.
    Running,
    /// An administrator paused it.
    Paused,
    /// It waits after a step that failed.
    BackingOff,
}

impl WorkerActivity {
    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::BackingOff => "backing-off",
        }
    }
}

/// What the rate of a worker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerUnit {
    /// Bytes read, moved or written.
    Bytes,
    /// Files, replicas, records.
    Items,
}

impl WorkerUnit {
    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Items => "items",
        }
    }
}

/// A change of what is set for a worker; the rest stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerChange {
    /// Pauses it from now on for this long, at most 7 days.
    Pause(Duration),
    /// Ends its pause.
    Resume,
    /// Sets its rate in units a second; `None` for no bound.
    Rate(Option<u64>),
    /// Restores the rate of its budget.
    DefaultRate,
}

impl Admin {
    /// Returns the background workers as their lease holder knows them.
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

    /// Changes what is set for a worker, and returns the worker as it is then. Holds at once, and
    /// survives restarts and changes of the lease holder. `INVALID_ARGUMENT` when no worker has
    /// this name; the message names those there are.
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

//! Settings of background workers.

use std::time::Duration;

use dfs_types::{Access, Scope};

use super::transaction::Attempt;
use super::{Namespace, TRIES, WorkerControl, WorkerPause};
use crate::engine::Condition;
use crate::{Error, keys};

/// A change of a worker's settings; other settings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerChange {
    /// Pauses it for this long from now, at most [`WorkerControl::PAUSE_MAX`]; zero ends the pause.
    Pause(Duration),
    /// Sets its rate in units per second, 0 for unlimited; `None` restores its budget.
    Rate(Option<u64>),
    /// Requests that it does everything at once.
    Start,
}

impl Namespace {
    /// Returns the settings of a worker; the default when none are stored.
    pub async fn worker_control(&self, scope: &Scope, name: &str) -> Result<WorkerControl, Error> {
        scope.require(Access::Read)?;
        let stored = self.begin().await?.peek(&keys::worker(name)).await?;
        Ok(stored.unwrap_or_default())
    }

    /// Changes the settings of a worker and returns them. Overwrites an unreadable record.
    pub async fn set_worker(
        &self,
        scope: &Scope,
        name: &str,
        change: WorkerChange,
        fence: Option<&Condition>,
    ) -> Result<WorkerControl, Error> {
        scope.require(Access::Admin)?;
        if let WorkerChange::Pause(length) = change
            && length > WorkerControl::PAUSE_MAX
        {
            let days = WorkerControl::PAUSE_MAX.as_secs() / 86_400;
            let what = format!("a pause lasts at most {days} days, and can be renewed");
            return Err(Error::Invalid { what });
        }
        let key = keys::worker(name);
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let mut control = match tx.get::<WorkerControl>(&key).await {
                Ok(stored) => stored.unwrap_or_default(),
                Err(Error::Damaged { .. }) => WorkerControl::default(),
                Err(error) => return Err(error),
            };
            match change {
                WorkerChange::Pause(length) => {
                    let until = self.now().plus(length);
                    control.pause = (!length.is_zero()).then_some(WorkerPause { until, length });
                }
                WorkerChange::Rate(rate) => control.rate = rate,
                // Greater than any before, even if the metadata was restored since.
                WorkerChange::Start => {
                    control.request = self.now().millis().max(control.request + 1);
                }
            }
            if control == WorkerControl::default() {
                tx.delete(key.clone());
            } else {
                tx.put(key.clone(), &control);
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(control);
            }
        }
        Err(Error::Conflict { what: "the settings of a worker", tries: TRIES })
    }
}

//! Memory of a client: one byte budget for everything in flight.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Minimum budget in bytes.
pub(crate) const BUDGET_MIN: usize = 16 << 20;
/// Budget of a client that sets none, in bytes.
pub(crate) const BUDGET_DEFAULT: usize = 64 << 20;

/// Bytes that a client and its clones may hold in memory.
///
/// Some bytes are held for as long as the application keeps them: those read ahead of a reader, and
/// those gathered from a slow stream. Each has its own limit, so that half of the budget always
/// becomes free again without user action.
#[derive(Debug)]
pub(crate) struct Budget {
    total: usize,
    all: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    gathered: Arc<Semaphore>,
}

/// A part of the budget; returned when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _all: OwnedSemaphorePermit,
    of_user: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = bytes.clamp(BUDGET_MIN, Semaphore::MAX_PERMITS);
        let part = |bytes| Arc::new(Semaphore::new(bytes));
        Self { total, all: part(total), ahead: part(total / 4), gathered: part(total / 4) }
    }

    /// Maximum number of bytes gathered from a stream at a time.
    pub(crate) fn gathered_max(&self) -> u64 {
        self.total as u64 / 4
    }

    /// Acquires bytes that are released without user action.
    pub(crate) async fn take(&self, bytes: u64) -> Share {
        Share { _all: acquire(&self.all, self.permits(bytes)).await, of_user: None }
    }

    /// Like [`Budget::take`], without waiting.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<Share> {
        let all = self.all.clone().try_acquire_many_owned(self.permits(bytes)).ok()?;
        Some(Share { _all: all, of_user: None })
    }

    /// Takes bytes that are kept until the user reads them, if enough are free.
    pub(crate) fn try_take_ahead(&self, bytes: u64) -> Option<Share> {
        let ahead = self.ahead.clone().try_acquire_many_owned(self.permits(bytes)).ok()?;
        Some(Share { of_user: Some(ahead), ..self.try_take(bytes)? })
    }

    /// Waits for room for bytes that the user will supply, at most [`Budget::gathered_max`].
    pub(crate) async fn take_to_gather(&self, bytes: u64) -> Share {
        let gathered = acquire(&self.gathered, self.permits(bytes)).await;
        Share { of_user: Some(gathered), ..self.take(bytes).await }
    }

    fn permits(&self, bytes: u64) -> u32 {
        bytes.clamp(1, self.total as u64).min(u64::from(u32::MAX)) as u32
    }
}

impl Share {
    /// Marks the bytes as gathered: from here on nothing waits for the user.
    pub(crate) fn gathered(mut self) -> Self {
        self.of_user = None;
        self
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    let acquired = semaphore.clone().acquire_many_owned(permits).await;
    acquired.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_hold_at_most_half_of_the_budget() {
        let budget = Budget::new(0);
        let quarter = budget.gathered_max();
        let ahead = budget.try_take_ahead(quarter).unwrap();
        assert!(budget.try_take_ahead(1).is_none());
        let gathering = budget.take_to_gather(quarter).await;
        let rest = budget.try_take(2 * quarter).unwrap();
        assert!(budget.try_take(1).is_none());
        drop(gathering.gathered());
        assert!(budget.try_take_ahead(1).is_none());
        drop(ahead);
        drop(budget.try_take_ahead(quarter).unwrap());
        drop(rest);
        assert!(budget.try_take(4 * quarter).is_some());
    }
}

//! The memory of a client: one budget of bytes for all that is under way.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The least that a budget may be.
pub(crate) const BUDGET_MIN: usize = 16 << 20;

/// Bytes that a client and its clones may hold.
///
/// Some of it is held for as long as a user likes: what is read ahead of a reader, and what is
/// gathered from a stream that is slow to give. Both have a bound of their own, so that half of
/// the budget always comes back, whatever users do.
#[derive(Debug)]
pub(crate) struct Budget {
    total: usize,
    all: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    gathered: Arc<Semaphore>,
}

/// A part of the budget; given back when dropped.
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

    /// Bytes that can be gathered from a stream at a time.
    pub(crate) fn gathered_max(&self) -> u64 {
        self.total as u64 / 4
    }

    /// Waits for bytes that will be given back without anything that the user does.
    pub(crate) async fn take(&self, bytes: u64) -> Share {
        Share { _all: acquire(&self.all, self.permits(bytes)).await, of_user: None }
    }

    /// The same without waiting.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<Share> {
        let all = self.all.clone().try_acquire_many_owned(self.permits(bytes)).ok()?;
        Some(Share { _all: all, of_user: None })
    }

    /// Takes bytes that are kept until the user reads them, if there are some to spare.
    pub(crate) fn try_take_ahead(&self, bytes: u64) -> Option<Share> {
        let ahead = self.ahead.clone().try_acquire_many_owned(self.permits(bytes)).ok()?;
        Some(Share { of_user: Some(ahead), ..self.try_take(bytes)? })
    }

    /// Waits for bytes that the user will give, at most [`Budget::gathered_max`].
    pub(crate) async fn take_to_gather(&self, bytes: u64) -> Share {
        let gathered = acquire(&self.gathered, self.permits(bytes)).await;
        Share { of_user: Some(gathered), ..self.take(bytes).await }
    }

    fn permits(&self, bytes: u64) -> u32 {
        bytes.clamp(1, self.total as u64).min(u64::from(u32::MAX)) as u32
    }
}

impl Share {
    /// The bytes are there: from here on nothing waits for the user.
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
    async fn users_hold_half_of_it_at_most() {
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

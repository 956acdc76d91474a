//! The request slots of a client: what makes its mutating calls safe to repeat.

use std::sync::{Mutex, PoisonError};

use dfs_types::{ClientId, Slot};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The slots, each used by one call at a time.
#[derive(Debug)]
pub(crate) struct Slots {
    client: ClientId,
    free: Mutex<Vec<(u32, u64)>>,
    available: Semaphore,
}

/// A slot while a call uses it. The call and its repeats carry the same number.
#[derive(Debug)]
pub(crate) struct SlotGuard<'a> {
    slots: &'a Slots,
    slot: Slot,
    _permit: SemaphorePermit<'a>,
}

impl Slots {
    pub(crate) fn new(client: ClientId) -> Self {
        let free = (0..Slot::PER_CLIENT).rev().map(|slot| (slot, 0)).collect();
        let available = Semaphore::new(Slot::PER_CLIENT as usize);
        Self { client, free: Mutex::new(free), available }
    }

    /// Waits for a free slot and takes its next number.
    pub(crate) async fn take(&self) -> SlotGuard<'_> {
        let permit = self.available.acquire().await.expect("the semaphore is never closed");
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (slot, last) = free.pop().expect("a permit stands for a free slot");
        let slot = Slot { client: self.client, slot, sequence: last + 1 };
        SlotGuard { slots: self, slot, _permit: permit }
    }
}

impl SlotGuard<'_> {
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let mut free = self.slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push((self.slot.slot, self.slot.sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slot_is_used_once_at_a_time_and_counts_up() {
        let slots = Slots::new(ClientId(1));
        let (first, second) = (slots.take().await, slots.take().await);
        assert_ne!(first.slot().slot, second.slot().slot);
        let number = first.slot();
        drop(first);
        let again = slots.take().await;
        assert_eq!((again.slot().slot, again.slot().sequence), (number.slot, number.sequence + 1));
    }
}

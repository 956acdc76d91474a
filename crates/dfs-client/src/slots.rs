//! Request slots of a client, which make its mutating calls safe to repeat.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_types::{ClientId, Clock, Random, Slot};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Age at which a client takes a new id for its next calls. The cluster refuses ids older than a
/// day, because it no longer keeps their replies.
const RENEW_AFTER: Duration = Duration::from_hours(6);

/// The slots, each used by one call at a time.
pub(crate) struct Slots {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    current: Mutex<Current>,
    available: Semaphore,
}

/// The current client id and its free slots.
struct Current {
    client: ClientId,
    free: Vec<(u32, u64)>,
}

/// A slot in use by a call. The call and its repeats carry the same number.
pub(crate) struct SlotGuard<'a> {
    slots: &'a Slots,
    slot: Slot,
    _permit: SemaphorePermit<'a>,
}

impl Slots {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let current = Mutex::new(Current::new(&*clock, &*random));
        let available = Semaphore::new(Slot::PER_CLIENT as usize);
        Self { clock, random, current, available }
    }

    /// Waits for a free slot and takes its next number.
    pub(crate) async fn take(&self) -> SlotGuard<'_> {
        let permit = self.available.acquire().await.expect("the semaphore is never closed");
        let mut current = self.lock();
        if self.clock.now().since(current.client.time()) >= RENEW_AFTER {
            *current = Current::new(&*self.clock, &*self.random);
        }
        let (slot, last) = current.free.pop().expect("each permit is a free slot");
        let slot = Slot { client: current.client, slot, sequence: last + 1 };
        SlotGuard { slots: self, slot, _permit: permit }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn new(clock: &dyn Clock, random: &dyn Random) -> Self {
        let free = (0..Slot::PER_CLIENT).rev().map(|slot| (slot, 0)).collect();
        Self { client: ClientId::new(clock.now(), random), free }
    }
}

impl SlotGuard<'_> {
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let mut current = self.slots.lock();
        // A slot of an earlier id is not reused.
        if current.client == self.slot.client {
            current.free.push((self.slot.slot, self.slot.sequence));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use dfs_types::{SeededRandom, Timestamp};

    use super::*;

    #[derive(Default)]
    struct ManualClock(AtomicU64);

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn slots() -> (Arc<ManualClock>, Slots) {
        let clock = Arc::<ManualClock>::default();
        let slots = Slots::new(clock.clone(), Arc::new(SeededRandom::new(1)));
        (clock, slots)
    }

    #[tokio::test]
    async fn slot_is_used_by_one_call_at_a_time_and_counts_up() {
        let (_, slots) = slots();
        let (first, second) = (slots.take().await, slots.take().await);
        assert_ne!(first.slot().slot, second.slot().slot);
        let number = first.slot();
        drop(first);
        let again = slots.take().await;
        assert_eq!((again.slot().slot, again.slot().sequence), (number.slot, number.sequence + 1));
    }

    #[tokio::test]
    async fn old_id_is_renewed_while_calls_keep_theirs() {
        let (clock, slots) = slots();
        let mut before = Vec::new();
        for _ in 0..Slot::PER_CLIENT {
            before.push(slots.take().await);
        }
        let kept = before.split_off(10);
        clock.0.store(RENEW_AFTER.as_millis() as u64, Ordering::Relaxed);
        drop(before);
        let mut after = Vec::new();
        for _ in 0..10 {
            after.push(slots.take().await);
        }
        let (old, new) = (kept[0].slot().client, after[0].slot().client);
        assert!(new > old && new.time() == clock.now());
        assert!(after.iter().all(|guard| guard.slot().client == new && guard.slot().sequence == 1));
        drop(kept);
        for _ in 10..Slot::PER_CLIENT {
            after.push(slots.take().await);
        }
        let numbers: std::collections::BTreeSet<u32> =
            after.iter().map(|guard| guard.slot().slot).collect();
        assert_eq!(numbers.len(), Slot::PER_CLIENT as usize, "each slot is used by one call");
    }
}

//! Verifications of complete replicas reported by readers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_types::ReplicaRef;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Maximum number of concurrent verifications.
const AT_ONCE: usize = 2;
/// Minimum time between two verifications of a replica, regardless of the number of reports.
const ONCE_IN: Duration = Duration::from_mins(10);
/// Maximum number of replicas verified within that time.
const REPLICAS_MAX: usize = 256;

/// Limits the reads caused by reports: a report names one block, which is always read; the complete
/// replica is read only as often as this allows.
pub(crate) struct Verifications {
    free: Semaphore,
    /// Time of the last verification of each replica.
    begun: Mutex<BTreeMap<ReplicaRef, Instant>>,
}

impl Default for Verifications {
    fn default() -> Self {
        Self { free: Semaphore::new(AT_ONCE), begun: Mutex::default() }
    }
}

impl Verifications {
    /// Starts to verify a replica, until the permit is dropped. `None` if it was verified recently,
    /// or too many others are.
    pub(crate) fn begin(&self, replica: ReplicaRef) -> Option<SemaphorePermit<'_>> {
        let permit = self.free.try_acquire().ok()?;
        let now = Instant::now();
        let mut begun = self.lock();
        begun.retain(|_, at| now.duration_since(*at) < ONCE_IN);
        if begun.len() >= REPLICAS_MAX || begun.contains_key(&replica) {
            return None;
        }
        begun.insert(replica, now);
        Some(permit)
    }

    /// Waits for the turn of a verification that must be done.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        self.free.acquire().await.expect("it is never closed")
    }

    /// Forgets a verification without a result: the next report may start another one.
    pub(crate) fn forget(&self, replica: ReplicaRef) {
        self.lock().remove(&replica);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaRef, Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ChunkId, DiskId, Part, Stamp};

    use super::*;

    fn replica(chunk: u128) -> ReplicaRef {
        ReplicaRef { chunk: ChunkId(chunk), part: Part::WHOLE, disk: DiskId(1), stamp: Stamp(1) }
    }

    #[tokio::test(start_paused = true)]
    async fn verifications_are_limited_in_number_and_rate() {
        let verifications = Verifications::default();
        let first = verifications.begin(replica(0));
        assert!(first.is_some() && verifications.begin(replica(0)).is_none());
        let second = verifications.begin(replica(1));
        assert!(second.is_some() && verifications.begin(replica(2)).is_none());
        drop((first, second));
        for chunk in 2..REPLICAS_MAX as u128 {
            assert!(verifications.begin(replica(chunk)).is_some());
        }
        assert!(verifications.begin(replica(1_000)).is_none());
        verifications.forget(replica(7));
        assert!(verifications.begin(replica(7)).is_some());
        tokio::time::advance(ONCE_IN).await;
        assert!(verifications.begin(replica(0)).is_some());
    }
}

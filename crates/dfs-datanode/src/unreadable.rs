//! Replicas with sectors that their disk does not return.
//!
//! A single I/O error proves nothing: a cable, a controller or shared storage may be at fault. What
//! stays unreadable is a different matter, so each replica is verified again some minutes later.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_types::{DiskId, ReplicaRef};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Minimum time between the two verifications that prove that a replica stays unreadable.
pub(crate) const APART: Duration = Duration::from_mins(5);
/// Replicas that stay unreadable within [`COUNTED_FOR`] until their disk fails.
pub(crate) const REPLICAS_UNTIL_FAILED: usize = 16;
/// Time for which a replica that stays unreadable counts against its disk.
const COUNTED_FOR: Duration = Duration::from_hours(24);
/// Maximum number of replicas remembered. Others are found again by their next reader.
const REPLICAS_MAX: usize = 4_096;

/// Replicas that could not be read completely.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    state: Mutex<State>,
    added: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Replicas to verify.
    due: BTreeMap<ReplicaRef, Check>,
    /// Replicas that stay unreadable, with the time of the last proof.
    proven: BTreeMap<ReplicaRef, Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Check {
    /// Time of the first verification that failed.
    failed: Option<Instant>,
    /// Time of the next one.
    due: Instant,
}

/// What an unreadable replica proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing yet: it will be verified again.
    Nothing,
    /// The replica stays unreadable.
    Replica,
    /// So many replicas on the disk stay unreadable that the disk has failed.
    Disk,
}

impl Unreadable {
    /// Notes that a read failed: the replica is verified soon.
    pub(crate) fn note(&self, replica: ReplicaRef) {
        let due = Instant::now();
        let mut state = self.lock();
        if state.due.len() < REPLICAS_MAX && !state.due.contains_key(&replica) {
            state.due.insert(replica, Check { failed: None, due });
            self.added.notify_one();
        }
    }

    /// Records that a verification failed while the disk returned nothing at all: earlier failures
    /// may have the same cause, so that the next one counts as the first.
    pub(crate) fn start_over(&self, replica: ReplicaRef) {
        let mut state = self.lock();
        if state.due.len() < REPLICAS_MAX || state.due.contains_key(&replica) {
            state.due.insert(replica, Check { failed: None, due: Instant::now() + APART });
            self.added.notify_one();
        }
    }

    /// Records that a verification failed while the disk returned other bytes. The replica is verified
    /// again if that proves nothing.
    pub(crate) fn failed(&self, replica: ReplicaRef) -> Proof {
        let now = Instant::now();
        let mut state = self.lock();
        let known = state.due.get(&replica).copied();
        if known.is_none() && state.due.len() >= REPLICAS_MAX {
            return Proof::Nothing;
        }
        let first = known.and_then(|check| check.failed).unwrap_or(now);
        if now.duration_since(first) < APART {
            state.due.insert(replica, Check { failed: Some(first), due: first + APART });
            self.added.notify_one();
            return Proof::Nothing;
        }
        state.due.insert(replica, Check { failed: Some(first), due: now + APART });
        self.added.notify_one();
        state.proven.retain(|_, at| now.duration_since(*at) < COUNTED_FOR);
        if state.proven.len() < REPLICAS_MAX {
            state.proven.insert(replica, now);
        }
        let on_disk = state.proven.keys().filter(|proven| proven.disk == replica.disk);
        if on_disk.count() >= REPLICAS_UNTIL_FAILED { Proof::Disk } else { Proof::Replica }
    }

    /// Ends the checks of a replica that was condemned; it still counts against its disk.
    pub(crate) fn end(&self, replica: ReplicaRef) {
        self.lock().due.remove(&replica);
    }

    /// Forgets a replica that could be read, or is gone.
    pub(crate) fn forget(&self, replica: ReplicaRef) {
        let mut state = self.lock();
        state.due.remove(&replica);
        state.proven.remove(&replica);
    }

    /// Forgets the replicas of a disk that is out of service.
    pub(crate) fn forget_disk(&self, disk: DiskId) {
        let mut state = self.lock();
        state.due.retain(|replica, _| replica.disk != disk);
        state.proven.retain(|replica, _| replica.disk != disk);
    }

    /// Waits until a replica must be verified, and postpones its next check.
    pub(crate) async fn next(&self) -> ReplicaRef {
        loop {
            let added = self.added.notified();
            let next = {
                let state = self.lock();
                let next = state.due.iter().min_by_key(|(_, check)| check.due);
                next.map(|(replica, check)| (*replica, check.due))
            };
            let Some((replica, due)) = next else {
                added.await;
                continue;
            };
            let now = Instant::now();
            if due <= now {
                if let Some(check) = self.lock().due.get_mut(&replica) {
                    check.due = now + APART;
                }
                return replica;
            }
            tokio::select! {
                () = added => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ChunkId, Part, Stamp};
    use tokio::time::advance;

    use super::*;

    fn replica(chunk: usize, disk: u128) -> ReplicaRef {
        let (chunk, disk) = (ChunkId(chunk as u128), DiskId(disk));
        ReplicaRef { chunk, part: Part::WHOLE, disk, stamp: Stamp(1) }
    }

    #[tokio::test(start_paused = true)]
    async fn replica_is_proven_unreadable_by_two_verifications_that_are_apart() {
        let unreadable = Unreadable::default();
        unreadable.note(replica(1, 1));
        assert_eq!(unreadable.next().await, replica(1, 1));
        assert_eq!(unreadable.failed(replica(1, 1)), Proof::Nothing);
        advance(Duration::from_mins(4)).await;
        assert_eq!(unreadable.failed(replica(1, 1)), Proof::Nothing, "too soon");
        let waiting = Instant::now();
        assert_eq!(unreadable.next().await, replica(1, 1));
        assert_eq!(waiting.elapsed(), Duration::from_mins(1), "measured from the first failure");
        assert_eq!(unreadable.failed(replica(1, 1)), Proof::Replica);
    }

    #[tokio::test(start_paused = true)]
    async fn readable_verification_starts_over() {
        let unreadable = Unreadable::default();
        assert_eq!(unreadable.failed(replica(1, 1)), Proof::Nothing);
        unreadable.forget(replica(1, 1));
        advance(APART).await;
        assert_eq!(unreadable.failed(replica(1, 1)), Proof::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn k03_verification_of_a_dark_disk_starts_over() {
        let unreadable = Unreadable::default();
        assert_eq!(unreadable.failed(replica(1, 1)), Proof::Nothing);
        advance(APART).await;
        unreadable.start_over(replica(1, 1));
        assert_eq!(unreadable.failed(replica(1, 1)), Proof::Nothing);
        let waiting = Instant::now();
        assert_eq!(unreadable.next().await, replica(1, 1));
        assert_eq!(waiting.elapsed(), APART);
        assert_eq!(unreadable.failed(replica(1, 1)), Proof::Replica);
    }

    #[tokio::test(start_paused = true)]
    async fn distinct_replicas_of_one_disk_within_a_day_fail_it() {
        let unreadable = Unreadable::default();
        let fail = |chunk, disk| unreadable.failed(replica(chunk, disk));
        for chunk in 0..REPLICAS_UNTIL_FAILED {
            fail(chunk, 1);
            fail(100 + chunk, 2);
        }
        fail(200, 1);
        advance(APART).await;
        for _ in 0..2 * REPLICAS_UNTIL_FAILED {
            assert_eq!(fail(200, 1), Proof::Replica, "one replica counts once");
        }
        for chunk in 0..REPLICAS_UNTIL_FAILED - 2 {
            assert_eq!(fail(chunk, 1), Proof::Replica);
            assert_eq!(fail(100 + chunk, 2), Proof::Replica, "each disk counts for itself");
        }
        advance(COUNTED_FOR).await;
        let last = REPLICAS_UNTIL_FAILED - 2;
        assert_eq!(fail(last, 1), Proof::Replica, "the others were long ago");
        for chunk in 0..REPLICAS_UNTIL_FAILED - 2 {
            assert_eq!(fail(chunk, 1), Proof::Replica);
        }
        assert_eq!(fail(last + 1, 1), Proof::Disk);
        unreadable.forget_disk(DiskId(1));
        assert_eq!(fail(0, 1), Proof::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_replicas_are_bounded() {
        let unreadable = Unreadable::default();
        for chunk in 0..2 * REPLICAS_MAX {
            unreadable.note(replica(chunk, 1));
            unreadable.failed(replica(chunk, 1));
        }
        assert_eq!(unreadable.lock().due.len(), REPLICAS_MAX);
    }
}

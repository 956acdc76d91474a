//! Verdicts on replicas that no coordinator has settled yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dfs_types::{ReplicaCondition, ReplicaRef, ReplicaVerdict};
use tokio::sync::Notify;

/// Verdicts per heartbeat.
pub(crate) const PER_REPORT: usize = 1_000;
/// Maximum number of verdicts kept in memory. Those left out are found again: bad replicas in the
/// store, absent ones by the next reader or list.
const KEPT_MAX: usize = 8 * PER_REPORT;

/// Verdicts to report in heartbeats until they are settled.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The newest verdict on each replica.
    kept: BTreeMap<ReplicaRef, ReplicaVerdict>,
    /// The last replica reported, so that a verdict that takes long to settle holds up no other.
    reported: Option<ReplicaRef>,
    /// Replicas that the records now call sound, so that they need not be set aside any more.
    sound: BTreeSet<ReplicaRef>,
    /// True if the store must be searched: more were found than kept, or a disk is new.
    is_incomplete: bool,
}

impl Verdicts {
    /// Adds a verdict. Returns true if its replica had no equal one. One that is not kept is found
    /// again later.
    pub(crate) fn add(&self, verdict: ReplicaVerdict) -> bool {
        let mut state = self.lock();
        if verdict.condition != ReplicaCondition::Sound {
            state.sound.remove(&verdict.replica);
        }
        let old = state.kept.get(&verdict.replica);
        if old.is_none() && state.kept.len() >= KEPT_MAX {
            state.is_incomplete = true;
            return false;
        }
        if old.is_some_and(|old| old.number >= verdict.number) {
            return false;
        }
        let is_new = old.is_none_or(|old| old.condition != verdict.condition);
        state.kept.insert(verdict.replica, verdict);
        is_new
    }

    /// Returns whether a verdict on the replica is waiting to be settled.
    pub(crate) fn has(&self, replica: ReplicaRef) -> bool {
        self.lock().kept.contains_key(&replica)
    }

    /// Removes a verdict with this number or an older one. The replica may be used again if the
    /// verdict was sound and `recorded`, what the record says of it now, is sound, too: the record
    /// may have a later verdict.
    pub(crate) fn settle(
        &self,
        replica: ReplicaRef,
        number: u64,
        recorded: Option<ReplicaCondition>,
    ) {
        let mut state = self.lock();
        let is_settled = |verdict: &&ReplicaVerdict| verdict.number <= number;
        let Some(verdict) = state.kept.get(&replica).filter(is_settled).copied() else { return };
        state.kept.remove(&replica);
        let is_sound = verdict.condition == ReplicaCondition::Sound;
        if is_sound && recorded == Some(ReplicaCondition::Sound) {
            state.sound.insert(replica);
        }
        drop(state);
        self.settled.notify_one();
    }

    /// Removes the verdict on a replica that was deleted.
    pub(crate) fn forget(&self, replica: ReplicaRef) {
        self.lock().kept.remove(&replica);
    }

    /// Returns the verdicts of the next heartbeat.
    pub(crate) fn page(&self) -> Vec<ReplicaVerdict> {
        let mut state = self.lock();
        let State { kept, reported, .. } = &mut *state;
        let start = reported.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = kept.range((start, Bound::Unbounded));
        let page: Vec<_> =
            rest.chain(kept.iter()).take(kept.len().min(PER_REPORT)).map(|(_, it)| *it).collect();
        *reported = page.last().map(|verdict| verdict.replica);
        page
    }

    /// Waits until replicas that are set aside are called sound by the records, and returns them.
    pub(crate) async fn sound(&self) -> BTreeSet<ReplicaRef> {
        loop {
            let settled = self.settled.notified();
            let sound = self.lock().sound.clone();
            if !sound.is_empty() {
                return sound;
            }
            settled.await;
        }
    }

    /// Returns true, once, if the records call the replica sound, and it was not found bad since.
    pub(crate) fn take_sound(&self, replica: ReplicaRef) -> bool {
        self.lock().sound.remove(&replica)
    }

    /// Notes that the store must be searched, as a disk came into service.
    pub(crate) fn set_incomplete(&self) {
        self.lock().is_incomplete = true;
    }

    /// Returns true, once, if the store must be searched for those left out.
    pub(crate) fn take_incomplete(&self) -> bool {
        let mut state = self.lock();
        state.kept.is_empty() && std::mem::take(&mut state.is_incomplete)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use dfs_types::{ChunkId, DiskId, Part, Stamp};

    use super::*;

    fn replica(chunk: usize) -> ReplicaRef {
        let chunk = ChunkId(chunk as u128);
        ReplicaRef { chunk, part: Part::WHOLE, disk: DiskId(1), stamp: Stamp(1) }
    }

    fn verdict(chunk: usize, number: u64, condition: ReplicaCondition) -> ReplicaVerdict {
        ReplicaVerdict { replica: replica(chunk), number, condition, block: 0 }
    }

    #[test]
    fn all_are_reported_eventually_though_few_are_kept() {
        let verdicts = Verdicts::default();
        let all = KEPT_MAX + 5;
        let mut left: BTreeSet<_> = (0..all).collect();
        let mut scans = 0;
        while !left.is_empty() {
            scans += 1;
            for chunk in &left {
                verdicts.add(verdict(*chunk, scans, ReplicaCondition::Bad));
            }
            loop {
                let page = verdicts.page();
                assert!(page.len() <= PER_REPORT);
                if page.is_empty() {
                    break;
                }
                for ReplicaVerdict { replica, number, .. } in page {
                    verdicts.settle(replica, number, None);
                    left.remove(&(replica.chunk.0 as usize));
                }
            }
            assert_eq!(verdicts.take_incomplete(), !left.is_empty());
            assert!(!verdicts.take_incomplete(), "returned once");
        }
        assert_eq!(scans, 2);
    }

    #[test]
    fn verdicts_that_are_not_settled_hold_up_no_others() {
        let verdicts = Verdicts::default();
        let all = 3 * PER_REPORT + 1;
        for chunk in 0..all {
            verdicts.add(verdict(chunk, 1, ReplicaCondition::Gone));
        }
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let page = verdicts.page();
            let chunks: BTreeSet<_> = page.iter().map(|verdict| verdict.replica.chunk).collect();
            assert_eq!(chunks.len(), page.len(), "none is reported twice at once");
            seen.extend(chunks);
        }
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn newest_verdict_is_kept_until_it_is_settled_itself() {
        use ReplicaCondition::{Bad, Sound};
        let verdicts = Verdicts::default();
        assert!(verdicts.add(verdict(1, 5, Bad)));
        assert!(!verdicts.add(verdict(1, 6, Bad)), "nothing new");
        assert!(!verdicts.add(verdict(1, 4, Sound)), "older");
        assert!(verdicts.add(verdict(1, 7, Sound)));
        verdicts.settle(replica(1), 6, Some(Sound));
        assert_eq!(verdicts.page(), [verdict(1, 7, Sound)]);
        verdicts.settle(replica(1), 7, Some(Sound));
        assert_eq!(verdicts.page(), []);
    }

    #[tokio::test]
    async fn k08_replica_is_called_sound_once_the_record_says_so() {
        use ReplicaCondition::{Bad, Gone, Sound};
        let verdicts = Verdicts::default();
        let settle = |chunk, condition, recorded| {
            verdicts.add(verdict(chunk, chunk as u64, condition));
            verdicts.settle(replica(chunk), chunk as u64, recorded);
            assert!(!verdicts.has(replica(chunk)));
        };
        settle(1, Sound, Some(Sound));
        settle(2, Bad, Some(Bad));
        // The record has a later verdict, or names the replica no more.
        settle(3, Sound, Some(Bad));
        settle(4, Sound, Some(Gone));
        settle(5, Sound, None);
        settle(6, Bad, Some(Sound));
        assert_eq!(verdicts.sound().await, [replica(1)].into());
        assert!(verdicts.take_sound(replica(1)) && !verdicts.take_sound(replica(1)));
    }

    #[test]
    fn k08_replica_found_bad_before_it_is_reinstated_stays_set_aside() {
        use ReplicaCondition::{Bad, Sound};
        let verdicts = Verdicts::default();
        for chunk in 0..KEPT_MAX {
            verdicts.add(verdict(chunk, 1, Sound));
        }
        verdicts.settle(replica(1), 1, Some(Sound));
        verdicts.settle(replica(2), 1, Some(Sound));
        verdicts.add(verdict(1, 2, Bad));
        verdicts.settle(replica(1), 2, Some(Bad));
        for chunk in 0..2 {
            verdicts.add(verdict(KEPT_MAX + chunk, 1, Sound));
        }
        assert!(!verdicts.add(verdict(2, 2, Bad)), "there is no room");
        assert!(!verdicts.take_sound(replica(1)) && !verdicts.take_sound(replica(2)));
    }
}

//! State exchanged between the services and the background work.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_metadata::chunk_health::LostDisks;
use dfs_metadata::engine::lease::LeaseGrant;
use dfs_metadata::namespace::Unreadable;
use dfs_proto::v1;
use dfs_types::{ChunkId, Revision};
use dfs_workers::{Control, DRAIN, Handles, SCRUB};
use tokio::time::Instant;
use tracing::warn;

use crate::build_slots::BuildSlots;
use crate::checks::Checks;
use crate::unreadable::UnreadableRecords;

/// Time between two moves of drain, in which it goes through its list, at most.
const DRAIN_PAUSE_MAX: Duration = Duration::from_secs(5);

/// State of the lease on this coordinator.
#[derive(Debug, Default)]
pub(crate) struct LeaseState(Mutex<Option<LeaseGrant>>);

impl LeaseState {
    /// Returns the grant, while it is held.
    pub(crate) fn grant(&self) -> Option<LeaseGrant> {
        *crate::lock(&self.0)
    }

    pub(crate) fn set(&self, grant: Option<LeaseGrant>) {
        *crate::lock(&self.0) = grant;
    }
}

/// Numbers of chunks by health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReplicationCounts {
    /// All chunks.
    pub(crate) chunks: u64,
    /// Chunks with fewer good replicas than wanted, but at least one.
    pub(crate) under_replicated: u64,
    /// Those of them that are lost if one more replica is.
    pub(crate) without_spare: u64,
    /// Chunks without a reachable good replica.
    pub(crate) missing: u64,
    /// Recorded replicas that are bad.
    pub(crate) bad_replicas: u64,
}

/// State that is kept while workers come and go with the lease.
#[derive(Debug)]
pub(crate) struct Background {
    /// Address of this coordinator for others.
    address: String,
    pub(crate) lease: Arc<LeaseState>,
    /// All workers: those that run here with the lease, and the settings of those on datanodes.
    pub(crate) workers: Handles,
    /// Held while a worker's settings change, so that the last stored change takes effect.
    pub(crate) setting: tokio::sync::Mutex<()>,
    /// Chunks reaped since repair last asked.
    reaped: AtomicU64,
    /// An upload was aborted since the reaper last asked.
    upload_aborted: AtomicBool,
    health: Mutex<Option<Health>>,
    /// Records that the reaper could not read in its last round.
    unreaped: Mutex<UnreadableRecords>,
    /// Unreadable node records at the last read.
    unreadable_nodes: Mutex<UnreadableRecords>,
    /// Comparisons of disks with records.
    pub(crate) checks: Checks,
    /// Limits on what is built at each node.
    pub(crate) builds: BuildSlots,
    /// Chunks whose replicas are being built.
    claims: Arc<Mutex<BTreeSet<ChunkId>>>,
    /// When a writer was last refused for lack of space.
    no_space: Mutex<Option<Instant>>,
    /// Why replicas are neither built nor doomed, if they are not.
    held: Mutex<Option<String>>,
    /// Chunks with more replicas than wanted; `None` before the first pass.
    surplus: Mutex<Option<u64>>,
    draining: Arc<Mutex<Draining>>,
}

/// Moves of drain.
#[derive(Debug, Default)]
struct Draining {
    /// Under way, or waiting for their turn.
    moves: usize,
    /// End of the last one that succeeded.
    last: Option<Instant>,
}

/// A move of drain, until this is dropped.
#[derive(Debug)]
pub(crate) struct DrainMove(Arc<Mutex<Draining>>);

impl DrainMove {
    /// Notes that the replica was moved.
    pub(crate) fn done(&self) {
        crate::lock(&self.0).last = Some(Instant::now());
    }
}

impl Drop for DrainMove {
    fn drop(&mut self) {
        crate::lock(&self.0).moves -= 1;
    }
}

/// The exclusive right to build replicas of a chunk, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    chunk: ChunkId,
    claims: Arc<Mutex<BTreeSet<ChunkId>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        crate::lock(&self.claims).remove(&self.chunk);
    }
}

/// Health of all chunks, as repair sees it.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) counts: ReplicationCounts,
    /// Chunks being repaired.
    pub(crate) repairing: u64,
    /// Chunks are being repaired, or will be as the rate of repair and the nodes have room.
    pub(crate) is_at_work: bool,
    /// Chunks for which the last attempt found no node.
    pub(crate) without_target: u64,
    /// Since when some chunk has been under-replicated or missing.
    pub(crate) degraded_since: Option<Instant>,
    /// Disks whose replicas do not count.
    pub(crate) lost: LostDisks,
    /// Unreadable records, of chunks in what repair publishes.
    pub(crate) unreadable: UnreadableRecords,
    /// Revision up to which changes of chunks are included.
    pub(crate) seen: Revision,
}

impl Background {
    pub(crate) fn new(address: String) -> Self {
        Self {
            address,
            lease: Arc::default(),
            workers: Handles::all(),
            setting: tokio::sync::Mutex::default(),
            reaped: AtomicU64::default(),
            upload_aborted: AtomicBool::default(),
            health: Mutex::default(),
            unreaped: Mutex::default(),
            unreadable_nodes: Mutex::default(),
            checks: Checks::default(),
            builds: BuildSlots::default(),
            claims: Arc::default(),
            no_space: Mutex::default(),
            held: Mutex::default(),
            surplus: Mutex::default(),
            draining: Arc::default(),
        }
    }

    /// Returns the address of this coordinator while it runs the background work, otherwise an
    /// empty string.
    pub(crate) fn lease_holder(&self) -> String {
        self.lease.grant().map(|_| self.address.clone()).unwrap_or_default()
    }

    /// Claims a chunk for a worker that builds replicas of it, until after the commit that names
    /// them; `None` while another worker has it. Without a claim, a replica that was just built
    /// would look like an orphan to others.
    pub(crate) fn claim(&self, chunk: ChunkId) -> Option<Claim> {
        let is_free = crate::lock(&self.claims).insert(chunk);
        is_free.then(|| Claim { chunk, claims: self.claims.clone() })
    }

    /// Returns the settings of the scrub for datanodes, while this coordinator holds the lease.
    pub(crate) fn scrub_control(&self) -> Option<v1::WorkerControl> {
        self.lease.grant()?;
        let handle = self.workers.of(&SCRUB);
        let Control { rate, request, .. } = handle.control();
        let left = handle.pause_left().unwrap_or_default();
        Some(v1::WorkerControl { pause_left_ms: left.as_millis() as u64, rate, request })
    }

    /// Adds chunks that became tombstones.
    pub(crate) fn reaped(&self, chunks: usize) {
        self.reaped.fetch_add(chunks as u64, Ordering::Relaxed);
    }

    /// Publishes the records that the reaper could not read.
    pub(crate) fn set_unreaped(&self, records: UnreadableRecords) {
        *crate::lock(&self.unreaped) = records;
    }

    /// Publishes the unreadable node records, and logs them when they change.
    pub(crate) fn set_unreadable_nodes(&self, unreadable: &[Unreadable]) {
        let mut records = UnreadableRecords::default();
        unreadable.iter().cloned().for_each(|record| records.add(record));
        let mut known = crate::lock(&self.unreadable_nodes);
        if *known != records {
            for Unreadable { key, why } in unreadable {
                warn!(key, why, "a node record is unreadable; it is skipped");
            }
            *known = records;
        }
    }

    /// Returns how many chunks were reaped since the last call.
    pub(crate) fn take_reaped(&self) -> u64 {
        self.reaped.swap(0, Ordering::Relaxed)
    }

    /// Notes that an upload was aborted, so that the reaper runs before its next regular round.
    pub(crate) fn upload_aborted(&self) {
        self.upload_aborted.store(true, Ordering::Relaxed);
    }

    /// Returns whether an upload was aborted since the last call.
    pub(crate) fn take_upload_aborted(&self) -> bool {
        self.upload_aborted.swap(false, Ordering::Relaxed)
    }

    /// Returns the chunks whose replicas are being built now.
    pub(crate) fn moving(&self) -> BTreeSet<ChunkId> {
        crate::lock(&self.claims).clone()
    }

    /// Notes that a writer was refused for lack of space.
    pub(crate) fn note_refusal(&self, now: Instant) {
        *crate::lock(&self.no_space) = Some(now);
    }

    /// Returns the time since the last such refusal, if any.
    pub(crate) fn no_space_since(&self, now: Instant) -> Option<Duration> {
        crate::lock(&self.no_space).map(|at| now.saturating_duration_since(at))
    }

    /// Publishes the chunks with more replicas than wanted, as far as they were found.
    pub(crate) fn set_surplus(&self, chunks: u64) {
        *crate::lock(&self.surplus) = Some(chunks);
    }

    /// Returns the chunks with more replicas than wanted; `None` while this coordinator does not know.
    pub(crate) fn surplus(&self) -> Option<u64> {
        self.lease.grant()?;
        *crate::lock(&self.surplus)
    }

    /// Publishes why repair, and all that moves or dooms replicas, is held; `None` when it is not.
    pub(crate) fn set_held(&self, why: Option<String>) {
        *crate::lock(&self.held) = why;
    }

    /// Returns why repair is held, if it is, as far as this coordinator runs it.
    pub(crate) fn held(&self) -> Option<String> {
        self.lease.grant()?;
        crate::lock(&self.held).clone()
    }

    /// Returns whether replicas are being repaired, or it is unknown whether any need it.
    pub(crate) fn is_repairing(&self) -> bool {
        crate::lock(&self.health).as_ref().is_none_or(|health| health.is_at_work)
    }

    /// Notes a move of drain, which may have to wait for its turn.
    pub(crate) fn drain_move(&self) -> DrainMove {
        crate::lock(&self.draining).moves += 1;
        DrainMove(self.draining.clone())
    }

    /// Returns whether drain moves replicas now, or did moments ago. Not while it is paused, and not
    /// while it has nowhere to move them to.
    pub(crate) fn is_draining(&self, now: Instant) -> bool {
        if self.workers.of(&DRAIN).pause_left().is_some() {
            return false;
        }
        let draining = crate::lock(&self.draining);
        draining.moves > 0 || draining.last.is_some_and(|last| now < last + DRAIN_PAUSE_MAX)
    }

    /// Publishes the health of all chunks; `None` while it is unknown.
    pub(crate) fn set_health(&self, health: Option<Health>) {
        *crate::lock(&self.health) = health;
    }

    /// Returns the health of chunks, including all changes up to `least`; `None` while this coordinator
    /// does not know. `lost` is the current set of lost disks.
    pub(crate) fn health(&self, lost: &LostDisks, least: Revision) -> Option<Health> {
        self.lease.grant()?;
        let health = crate::lock(&self.health);
        let is_current = |health: &&Health| health.lost == *lost && health.seen >= least;
        let mut health = health.as_ref().filter(is_current)?.clone();
        health.unreadable.extend(&crate::lock(&self.unreaped));
        health.unreadable.extend(&crate::lock(&self.unreadable_nodes));
        Some(health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_is_at_work_while_a_move_waits_for_its_turn_and_briefly_after_it_succeeded() {
        let background = Background::new(String::new());
        let is_draining = || background.is_draining(Instant::now());
        let advance = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let slow = background.drain_move();
        advance(3_600).await;
        assert!(is_draining(), "however long it waits");
        drop(slow);
        assert!(!is_draining(), "it had nowhere to go");
        let succeeded = background.drain_move();
        succeeded.done();
        drop(succeeded);
        assert!(is_draining());
        let next = background.drain_move();
        advance(6).await;
        let control = Control {
            paused_until: Some(Instant::now() + Duration::from_secs(9)),
            ..Control::default()
        };
        background.workers.of(&DRAIN).set_control(control);
        assert!(!is_draining(), "paused");
        advance(10).await;
        assert!(is_draining());
        drop(next);
        assert!(!is_draining());
    }
}

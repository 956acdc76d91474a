//! Gives back what was unlinked, what was never finished, and what is kept of clients long gone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::engine::LeaseGrant;
use dfs_metadata::namespace::{ReapLimits, Reaped};
use dfs_types::ChunkId;
use tokio::time::Instant;
use tracing::debug;

use super::{Next, Progress, WORKER_LEASE, Worker};
use crate::Error;
use crate::core::Core;
use crate::service::PLAN_LIFETIME;

/// Unlinked things, or uploads, that one step takes.
const ITEMS_MAX: usize = 256;
/// Answers of slots, or chunks, that one step of a sweep looks at.
const SWEEP_LEN: usize = 90;
/// How often uploads and slots are looked through.
const UPKEEP_EVERY: Duration = Duration::from_mins(1);
/// How often tombstones are looked for, which takes a look at every chunk.
const TOMBSTONES_EVERY: Duration = Duration::from_hours(1);
/// Pause between the steps of that look, so that it is not felt.
const TOMBSTONES_PAUSE: Duration = Duration::from_millis(20);
/// How much older than any plan that is still honoured the floor stays.
const FLOOR_MARGIN: Duration = Duration::from_mins(10);

/// The worker.
pub(crate) struct Reaper {
    core: Arc<Core>,
    progress: Arc<Progress>,
    next_upkeep: Instant,
    tombstones: Tombstones,
}

/// The look for tombstones.
enum Tombstones {
    /// The next one begins then, if anything was reaped meanwhile.
    Wait { until: Instant, is_needed: bool },
    /// Under way.
    After(Option<ChunkId>),
}

impl Reaper {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let now = Instant::now();
        Self {
            progress: core.background.reaper.clone(),
            core,
            next_upkeep: now,
            // Earlier holders of the lease may have left some.
            tombstones: Tombstones::Wait { until: now + UPKEEP_EVERY, is_needed: true },
        }
    }

    /// Whether so much of the cluster is in use that nothing deleted is kept.
    fn is_under_pressure(&self) -> bool {
        let views = self.core.registry().views(Instant::now());
        let heard = || views.iter().filter(|view| view.last_heard.is_some());
        let capacity: u128 = heard().map(|view| u128::from(view.capacity)).sum();
        let free: u128 = heard().map(|view| u128::from(view.free)).sum();
        let percent = u128::from(self.core.settings.pressure_percent);
        capacity > 0 && capacity.saturating_sub(free) * 100 >= capacity * percent
    }

    /// Hands on what was reaped. Whether there is more.
    fn take(&mut self, reaped: &Reaped) -> bool {
        self.core.background.reaped(&reaped.copies);
        self.progress.add_done(reaped.finished as u64);
        if let Tombstones::Wait { is_needed, .. } = &mut self.tombstones {
            *is_needed |= !reaped.copies.is_empty();
        }
        if reaped.finished > 0 {
            debug!(finished = reaped.finished, copies = reaped.copies.len(), "reaped");
        }
        reaped.has_more
    }

    async fn upkeep(&mut self, lease: &LeaseGrant) -> Result<bool, Error> {
        let fence = lease.fence(WORKER_LEASE);
        let limits = ReapLimits { items: ITEMS_MAX, pressure: false };
        let reaped = self.core.namespace.reap_uploads(&limits, Some(&fence)).await;
        let reaped = reaped.map_err(Error::metadata("reaping uploads that were given up"))?;
        let mut has_more = self.take(&reaped);
        let swept = self.core.namespace.sweep_slots(SWEEP_LEN).await;
        has_more |= swept.map_err(Error::metadata("forgetting clients that are gone"))?;
        if !has_more {
            self.next_upkeep = Instant::now() + UPKEEP_EVERY;
        }
        Ok(has_more)
    }

    /// One step of the look for tombstones. Whether it goes on.
    async fn sweep(&mut self, lease: &LeaseGrant) -> Result<bool, Error> {
        let namespace = &self.core.namespace;
        let fence = lease.fence(WORKER_LEASE);
        let now = Instant::now();
        let after = match self.tombstones {
            Tombstones::Wait { until, is_needed } if until <= now && is_needed => {
                let floor = self.core.clock.now().minus(PLAN_LIFETIME + FLOOR_MARGIN);
                let raised = namespace.raise_gc_floor(floor, Some(&fence)).await;
                raised.map_err(Error::metadata("raising the floor of the collector"))?;
                None
            }
            Tombstones::Wait { .. } => return Ok(false),
            Tombstones::After(after) => after,
        };
        let swept = namespace.sweep_tombstones(after, SWEEP_LEN, Some(&fence)).await;
        let next = swept.map_err(Error::metadata("removing tombstones"))?;
        self.tombstones = match next {
            Some(next) => Tombstones::After(Some(next)),
            // Those whose copies are not deleted yet, or above the floor, are for the next round.
            None => Tombstones::Wait { until: now + TOMBSTONES_EVERY, is_needed: true },
        };
        Ok(next.is_some())
    }
}

#[async_trait]
impl Worker for Reaper {
    fn progress(&self) -> &Progress {
        &self.progress
    }

    async fn step(&mut self, lease: &LeaseGrant) -> Result<Next, Error> {
        let pressure = self.is_under_pressure();
        let limits = ReapLimits { items: ITEMS_MAX, pressure };
        let fence = lease.fence(WORKER_LEASE);
        let reaped = self.core.namespace.reap(&limits, Some(&fence)).await;
        let reaped = reaped.map_err(Error::metadata("reaping what was unlinked"))?;
        let mut has_more = self.take(&reaped);
        if self.next_upkeep <= Instant::now() {
            has_more |= self.upkeep(lease).await?;
        }
        let is_sweeping = self.sweep(lease).await?;
        self.progress.set_state(match (pressure, has_more || is_sweeping) {
            (true, _) => "gives back at once: the cluster is nearly full",
            (false, true) => "reaps",
            (false, false) => "nothing is due",
        });
        Ok(match (has_more, is_sweeping) {
            (true, _) => Next::Again,
            (false, true) => Next::After(TOMBSTONES_PAUSE),
            (false, false) => Next::After(self.core.settings.heartbeat_interval()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use dfs_metadata::memory::MemoryEngine;
    use dfs_metadata::namespace::{
        Confirm, Delete, Placement, PlanUpload, Registration, WrittenChunk,
    };
    use dfs_metadata::placement::Candidate;
    use dfs_runtime::Shutdown;
    use dfs_transport::TcpNetwork;
    use dfs_types::{
        Attributes, ChunkSeal, Clock, Crc32c, DfsPath, DiskId, NodeId, NodeState, Receipt,
        RegistrationNumber, Seal, SeededRandom, Sha256, Stamp, Timestamp,
    };
    use tokio::time::sleep;

    use super::*;
    use crate::{Components, JoinSecret, Service, Settings, init};

    #[derive(Default)]
    struct ManualClock(AtomicU64);

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    const NODE: NodeId = NodeId(1);

    /// Writes a file of one chunk with one copy, and deletes it at once.
    async fn write_and_delete(core: &Core) -> ChunkId {
        let registration = Registration {
            node: NODE,
            cluster: None,
            registration: RegistrationNumber(0),
            address: "127.0.0.1:1".to_owned(),
            zone: String::new(),
            host: String::new(),
            version: String::new(),
            disks: Vec::new(),
        };
        let registered = core.namespace.register(&registration, true).await.unwrap();
        core.namespace.confirm_registration(NODE, registered.number).await.unwrap();
        let path = DfsPath::new(&b"/file"[..]).unwrap();
        let upload = PlanUpload {
            path: path.clone(),
            size: Some(5),
            chunk_size: None,
            replication_factor: Some(1),
            max_chunks: 0,
            client_host: String::new(),
            client_zone: String::new(),
        };
        let (zone, host) = (String::new(), String::new());
        let candidates = [Candidate { node: NODE, zone, host, free: 1 << 40 }];
        let placement = Placement { candidates: &candidates, selector: &*core.selector };
        let plan = core.namespace.plan_upload(&upload, &placement).await.unwrap();
        let chunk = plan.chunks[0].chunk;
        let seal = ChunkSeal { length: 5, crc32c: Crc32c(1), sha256: Sha256([0; 32]) };
        let receipt = Receipt {
            chunk,
            length: 5,
            crc32c: Crc32c(1),
            node: NODE,
            disk: DiskId(1),
            stamp: Stamp(1),
            registration: registered.number,
            seal: Seal([0; 32]),
        };
        let receipts = vec![receipt.sealed(&registered.key)];
        let confirm = Confirm {
            tokens: vec![plan.token],
            chunks: vec![WrittenChunk { chunk, file_offset: 0, seal, receipts }],
            size: 5,
            attributes: Attributes::default(),
            create_only: false,
        };
        core.namespace.confirm(&confirm, None).await.unwrap();
        let delete = Delete { path, recursive: false, now: true };
        core.namespace.delete(&delete, None).await.unwrap();
        chunk
    }

    #[tokio::test(start_paused = true)]
    async fn the_tombstone_of_a_chunk_goes_once_its_copies_are_gone_and_no_plan_can_name_it() {
        let clock = Arc::new(ManualClock::default());
        clock.0.store(1_700_000_000_000, Ordering::Relaxed);
        let components = Components {
            engine: Arc::new(MemoryEngine::new()),
            network: Arc::new(TcpNetwork),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
        };
        let settings = Settings {
            listen: "127.0.0.1:0".to_owned(),
            http_listen: String::new(),
            join_secret: JoinSecret::new("secret"),
            ..Settings::default()
        };
        let options = settings.init_options();
        init(components.engine.clone(), &*clock, &SeededRandom::new(2), options).await.unwrap();
        let service = Service::start(settings, components).await.unwrap();
        let core = service.core();
        let (_trigger, shutdown) = Shutdown::new();
        tokio::spawn(service.run(shutdown));
        let chunk = write_and_delete(&core).await;
        let read = async || core.namespace.chunks(&[chunk]).await.unwrap().remove(0);

        // Its node does not answer, so the copy may still be there.
        clock.0.fetch_add(3 * 3_600_000, Ordering::Relaxed);
        sleep(TOMBSTONES_EVERY * 3).await;
        let tombstone = read().await.unwrap();
        assert!(tombstone.is_tombstone());
        assert_eq!(tombstone.copies.len(), 1);

        // It will never answer.
        core.namespace.set_node_state(NODE, NodeState::Removed).await.unwrap();
        sleep(TOMBSTONES_EVERY * 2).await;
        assert_eq!(read().await, None);
    }
}

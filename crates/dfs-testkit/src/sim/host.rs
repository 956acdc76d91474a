//! The servers of a simulated cluster.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{Fs, Pool};
use dfs_engines::Execution;
use dfs_engines::redb::{Options, RedbEngine};
use dfs_metadata::engine::Engine;
use dfs_runtime::{JoinSecret, Shutdown};
use dfs_types::SeededRandom;

use super::disk::{FsBackend, LyingFs};
use super::trace::Trace;
use super::{Disks, SimClock, SimNetwork};

pub(super) const COORDINATOR: &str = "coordinator";
pub(super) const CLIENT: &str = "client";
pub(super) const DATANODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// Where the coordinator is reached.
pub(super) const COORDINATOR_ADDRESS: &str = "coordinator:7070";
const JOIN_SECRET: &str = "simulation";

type Failed = Box<dyn Error + Send + Sync>;

/// A machine that runs one server; its disks outlive the server's crashes.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: &'static str,
    pub(super) disks: SimFs,
    kind: Disks,
    seed: u64,
    lives: AtomicU64,
    trace: Trace,
    /// What was wrong with the metadata, if anything.
    problem: Mutex<Option<String>>,
}

/// Simulated time between two checks of the metadata.
const CHECK_EVERY: Duration = Duration::from_millis(100);

impl Machine {
    pub(super) fn new(name: &'static str, kind: Disks, seed: u64, trace: Trace) -> Arc<Self> {
        let disks = SimFs::new();
        let (lives, problem) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Self { name, disks, kind, seed, lives, trace, problem })
    }

    fn fs(&self) -> Arc<dyn Fs> {
        match self.kind {
            Disks::Honest => Arc::new(self.disks.clone()),
            Disks::Lying => Arc::new(LyingFs(self.disks.clone())),
        }
    }

    /// Runs the server until it crashes. A start that fails, or an end, is noted; a machine that
    /// should run and does not keeps the cluster from healing.
    pub(super) async fn live(self: Arc<Self>) -> turmoil::Result {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let random = Arc::new(SeededRandom::new(self.seed.wrapping_add(life)));
        self.trace.note(format_args!("{} starts", self.name));
        let ended = match self.name {
            COORDINATOR => self.coordinate(random, life == 0).await,
            _ => self.store(random).await,
        };
        match ended {
            Ok(()) => self.trace.note(format_args!("{} has ended", self.name)),
            Err(error) => {
                let mut reasons = error.to_string();
                let mut source = error.source();
                while let Some(error) = source {
                    reasons = format!("{reasons}: {error}");
                    source = error.source();
                }
                self.trace.note(format_args!("{} failed: {reasons}", self.name));
            }
        }
        Ok(())
    }

    async fn coordinate(&self, random: Arc<SeededRandom>, is_new: bool) -> Result<(), Failed> {
        use dfs_coordinator::{Components, Service, Settings, init};

        let backend = FsBackend::open(&*self.fs(), Path::new("/metadata.redb"))?;
        let options = Options { cache_bytes: 1 << 20, execution: Execution::Inline };
        let engine: Arc<dyn Engine> = Arc::new(RedbEngine::with_backend(backend, options).await?);
        let settings = Settings {
            listen: "0.0.0.0:7070".to_owned(),
            http_listen: String::new(),
            advertise: COORDINATOR_ADDRESS.to_owned(),
            join_secret: JoinSecret::new(JOIN_SECRET),
            heartbeat_interval_ms: 500,
            suspect_after_ms: 2_000,
            lost_after_ms: 6_000,
            restorable_ms: 4_000,
            worker_lease_ms: 2_000,
            ..Settings::default()
        };
        if is_new {
            init(engine.clone(), &SimClock, &*random, settings.init_options()?).await?;
        }
        let network = Arc::new(SimNetwork);
        let checked = engine.clone();
        let components = Components { engine, network, clock: Arc::new(SimClock), random };
        let service = Service::start(settings, components).await?;
        // Nobody gives the order to stop: machines crash.
        let (_never, shutdown) = Shutdown::new();
        tokio::select! {
            ended = service.run(shutdown) => Ok(ended?),
            failed = self.check(&*checked) => failed,
        }
    }

    /// Checks all records again and again, and recounts which work keys follow from them. Ends
    /// when something is wrong.
    async fn check(&self, engine: &dyn Engine) -> Result<(), Failed> {
        loop {
            tokio::time::sleep(CHECK_EVERY).await;
            let report = dfs_metadata::check::check(engine, &|_| ()).await?;
            if !report.is_clean() {
                let found = format!("the metadata is not clean: {:?}", report.problems);
                *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
                return Err(found.into());
            }
        }
    }

    /// What was wrong with the metadata, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn store(&self, random: Arc<SeededRandom>) -> Result<(), Failed> {
        use dfs_datanode::{Components, Disk, Service, Settings, open_store};

        let settings = Settings {
            listen: "0.0.0.0:7080".to_owned(),
            http_listen: String::new(),
            advertise: format!("{}:7080", self.name),
            coordinators: vec![COORDINATOR_ADDRESS.to_owned()],
            join_secret: JoinSecret::new(JOIN_SECRET),
            host: self.name.to_owned(),
            disks: vec![Disk::new("/disk-1"), Disk::new("/disk-2")],
            headroom_bytes_min: 0,
            session_idle_ms: 5_000,
            replica_stall_ms: 2_000,
            ..Settings::default()
        };
        let pool = Pool::inline();
        let store = open_store(&settings, self.fs(), pool.clone(), random.clone()).await?;
        let components = Components { network: Arc::new(SimNetwork), store, pool, random };
        let service = Service::start(settings, components).await?;
        let (_never, shutdown) = Shutdown::new();
        Ok(service.run(shutdown).await?)
    }
}

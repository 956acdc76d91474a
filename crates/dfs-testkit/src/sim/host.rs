//! The servers of a simulated cluster.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{Fs, Pool};
use dfs_engines::Execution;
use dfs_engines::redb::{Options, RedbEngine};
use dfs_metadata::engine::Engine;
use dfs_runtime::{JoinSecret, Shutdown, Trigger};
use dfs_types::{ErrorCode, Level, SeededRandom};
use turmoil::Sim;

use super::damage::DISKS;
use super::disk::{FsBackend, LyingFs};
use super::invariants::work_keys;
use super::observed_engine::{Observed, ObservedEngine};
use super::trace::Trace;
use super::upgrade::{CrashingEngine, RaiseCrash};
use super::{Disks, SimClock, SimNetwork};

pub(super) const COORDINATOR: &str = "coordinator";
pub(super) const CLIENT: &str = "client";
pub(super) const DATANODES: [&str; 4] = ["node-1", "node-2", "node-3", "node-4"];
/// Address of the coordinator.
pub(super) const COORDINATOR_ADDRESS: &str = "coordinator:7070";
/// File of the metadata on the disks of the coordinator.
pub(super) const METADATA: &str = "/metadata.redb";
const JOIN_SECRET: &str = "simulation";

type Failed = Box<dyn Error + Send + Sync>;

/// A machine that runs one server; its disks survive the server's crashes.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: &'static str,
    pub(super) disks: SimFs,
    pub(super) clock: SimClock,
    kind: Disks,
    seed: u64,
    lives: AtomicU64,
    trace: Trace,
    /// The newest write level that its release reads.
    level: Mutex<Level>,
    /// Error that ended its last life, if any.
    failure: Mutex<Option<ErrorCode>>,
    crash_at_raise: Mutex<Option<Arc<RaiseCrash>>>,
    /// Ends the current life cleanly; `None` once requested.
    stop: Mutex<Option<Trigger>>,
    /// Network of the current life.
    network: Mutex<SimNetwork>,
    /// Problem with the metadata, if any.
    problem: Mutex<Option<String>>,
    /// Commits of the coordinator.
    pub(super) observed: Arc<Observed>,
}

/// Simulated time between two checks of the metadata.
const CHECK_EVERY: Duration = Duration::from_millis(100);

impl Machine {
    pub(super) fn new(name: &'static str, kind: Disks, seed: u64, trace: Trace) -> Arc<Self> {
        let disks = SimFs::new();
        Arc::new(Self {
            name,
            disks,
            clock: SimClock::default(),
            kind,
            seed,
            lives: AtomicU64::new(0),
            trace,
            level: Mutex::default(),
            failure: Mutex::default(),
            crash_at_raise: Mutex::default(),
            stop: Mutex::default(),
            network: Mutex::default(),
            problem: Mutex::default(),
            observed: Arc::default(),
        })
    }

    /// Sets the release that the machine runs from its next start on.
    pub(super) fn set_level(&self, level: Level) {
        *lock(&self.level) = level;
    }

    fn level(&self) -> Level {
        *lock(&self.level)
    }

    /// The error that the last life ended with by itself.
    pub(super) fn failure(&self) -> Option<ErrorCode> {
        *lock(&self.failure)
    }

    /// Asks the server to shut down cleanly.
    pub(super) fn stop(&self) {
        if let Some(stop) = lock(&self.stop).take() {
            stop.stop();
        }
    }

    /// Returns true if the current life was asked to end.
    pub(super) fn is_stopping(&self) -> bool {
        lock(&self.stop).is_none()
    }

    /// Makes the disks fail while the coordinator raises the write level.
    pub(super) fn crash_at_raise(&self, crash: Arc<RaiseCrash>) {
        *lock(&self.crash_at_raise) = Some(crash);
    }

    fn fs(&self) -> Arc<dyn Fs> {
        match self.kind {
            Disks::Honest => Arc::new(self.disks.clone()),
            Disks::Lying => Arc::new(LyingFs(self.disks.clone())),
        }
    }

    /// Cuts the power: unsynced data is lost, completely or as chosen by `torn`.
    pub(super) fn crash(&self, sim: &mut Sim<'_>, torn: Option<&SeededRandom>) {
        lock(&self.network).end();
        // Operations of tasks being dropped do not reach the disks.
        self.disks.stop_at(self.disks.operations());
        sim.crash(self.name);
        match torn {
            Some(random) => self.disks.crash_torn(random),
            None => self.disks.crash(),
        }
    }

    /// Kills the server: what it wrote stays, durable or not.
    pub(super) fn kill(&self, sim: &mut Sim<'_>) {
        if sim.is_host_running(self.name) {
            lock(&self.network).end();
            // Operations of tasks being dropped do not reach the disks.
            self.disks.stop_at(self.disks.operations());
            sim.crash(self.name);
            self.disks.end_process();
        }
    }

    /// Leaves this many bytes on its disks; `None` for plenty.
    pub(super) fn fill(&self, left: Option<u64>) {
        let space = self.disks.space(Path::new("/"));
        let taken = space.map_or(0, |space| space.total - space.available);
        self.disks.set_capacity(left.map_or(1 << 40, |left| taken + left));
    }

    /// Starts the machine unless it runs.
    pub(super) fn start(&self, sim: &mut Sim<'_>) {
        if !sim.is_host_running(self.name) {
            lock(&self.network).end();
            sim.bounce(self.name);
        }
    }

    /// Runs the server until it crashes. A failed start, or an end, is noted; a machine that should
    /// run and does not prevents the cluster from healing.
    pub(super) async fn live(self: Arc<Self>) -> turmoil::Result {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let random = Arc::new(SeededRandom::new(self.seed.wrapping_add(life)));
        *lock(&self.failure) = None;
        let (stop, shutdown) = Shutdown::new();
        *lock(&self.stop) = Some(stop);
        *lock(&self.network) = SimNetwork::default();
        self.trace.note(format_args!("{} starts", self.name));
        let ended = match self.name {
            COORDINATOR => self.coordinate(random, life == 0, shutdown).await,
            _ => self.store(random, shutdown).await,
        };
        match ended {
            Ok(()) => self.trace.note(format_args!("{} has ended", self.name)),
            Err(error) => {
                *lock(&self.failure) = code_of(&*error);
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

    async fn coordinate(
        &self,
        random: Arc<SeededRandom>,
        is_new: bool,
        shutdown: Shutdown,
    ) -> Result<(), Failed> {
        use dfs_coordinator::{Components, Service, Settings, init};

        let backend = FsBackend::open(&*self.fs(), Path::new(METADATA))?;
        let options = Options { cache_bytes: 1 << 20, execution: Execution::Inline };
        let mut engine: Arc<dyn Engine> =
            Arc::new(RedbEngine::with_backend(backend, options).await?);
        if let Some(crash) = lock(&self.crash_at_raise).clone().filter(|_| !is_new) {
            engine = Arc::new(CrashingEngine { inner: engine, disks: self.disks.clone(), crash });
        }
        engine = Arc::new(ObservedEngine::new(engine, self.disks.clone(), self.observed.clone()));
        let settings = Settings {
            listen: "0.0.0.0:7070".to_owned(),
            http_listen: String::new(),
            advertise: COORDINATOR_ADDRESS.to_owned(),
            join_secret: JoinSecret::new(JOIN_SECRET),
            heartbeat_interval_ms: 500,
            suspect_after_ms: 2_000,
            lost_after_ms: 6_000,
            restorable_ms: 4_000,
            confirm_clock_ms: 2_000,
            reconcile_interval_ms: 5_000,
            reconcile_settle_ms: 1_000,
            orphan_age_ms: 4_000,
            worker_lease_ms: 2_000,
            drain_ms: 500,
            level: self.level(),
            ..Settings::default()
        };
        if is_new {
            init(engine.clone(), &self.clock, &*random, settings.init_options()?).await?;
        }
        let network = Arc::new(lock(&self.network).clone());
        let checked = engine.clone();
        let clock = Arc::new(self.clock.clone());
        let components = Components { engine, network, clock, random };
        let before = checked.snapshot().await?.revision();
        let service = match Service::start(settings, components).await {
            Err(error) if error.code() == ErrorCode::UnsupportedVersion => {
                let after = checked.snapshot().await?.revision();
                if after != before {
                    self.report(format!("a refused release committed: {before} to {after}"));
                }
                return Err(error.into());
            }
            started => started?,
        };
        tokio::select! {
            biased;
            ended = service.run(shutdown) => Ok(ended?),
            failed = self.check(&*checked) => failed,
        }
    }

    /// Checks all records repeatedly. Ends when it finds a problem.
    async fn check(&self, engine: &dyn Engine) -> Result<(), Failed> {
        loop {
            tokio::time::sleep(CHECK_EVERY).await;
            if let Some(found) = work_keys::problems(engine).await? {
                self.report(found.clone());
                return Err(found.into());
            }
        }
    }

    /// Returns the problem with the metadata, if any.
    pub(super) fn problem(&self) -> Option<String> {
        lock(&self.problem).clone().or_else(|| self.observed.problem())
    }

    fn report(&self, problem: String) {
        lock(&self.problem).get_or_insert(problem);
    }

    async fn store(&self, random: Arc<SeededRandom>, shutdown: Shutdown) -> Result<(), Failed> {
        use dfs_datanode::{Components, Disk, Service, Settings, open_store};

        let settings = Settings {
            listen: "0.0.0.0:7080".to_owned(),
            http_listen: String::new(),
            advertise: format!("{}:7080", self.name),
            coordinators: vec![COORDINATOR_ADDRESS.to_owned()],
            join_secret: JoinSecret::new(JOIN_SECRET),
            host: self.name.to_owned(),
            disks: DISKS.map(Disk::new).into(),
            headroom_bytes_min: 0,
            session_idle_ms: 5_000,
            replica_stall_ms: 2_000,
            scrub_every_ms: 20_000,
            drain_ms: 500,
            level: self.level(),
            ..Settings::default()
        };
        let pool = Pool::inline();
        let store = open_store(&settings, self.fs(), pool.clone(), random.clone()).await?;
        let network = Arc::new(lock(&self.network).clone());
        let components = Components { network, store, pool, random };
        let service = Service::start(settings, components).await?;
        service.run(shutdown).await;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The code of an error with which a server ended.
fn code_of(error: &(dyn Error + Send + Sync + 'static)) -> Option<ErrorCode> {
    let coordinator = error.downcast_ref().map(dfs_coordinator::Error::code);
    coordinator.or_else(|| error.downcast_ref().map(dfs_datanode::Error::code))
}

//! The servers of a simulated cluster.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{Config, DiskStore, Fs, Pool, Stalls};
use dfs_engines::Execution;
use dfs_engines::redb::{Options, RedbEngine};
use dfs_metadata::engine::Engine;
use dfs_metadata::migrate::migrate;
use dfs_runtime::{JoinSecret, Shutdown, Trigger};
use dfs_types::{ErrorCode, Level, Random as _, SeededRandom};
use futures_util::future::try_join_all;
use turmoil::Sim;

use super::damage::DISKS;
use super::disk::{FsBackend, LyingFs};
use super::invariants::work_keys;
use super::observed_engine::{Observed, ObservedEngine};
use super::stale_lease::{LeaseHolders, StaleLeaseEngine};
use super::trace::Trace;
use super::upgrade::{CrashingEngine, RaiseCrash};
use super::{Disks, SimClock, SimNetwork};

pub(super) const COORDINATOR: &str = "coordinator";
pub(super) const CLIENT: &str = "client";
pub(super) const DATANODES: [&str; 4] = ["node-1", "node-2", "node-3", "node-4"];
/// Ports of the coordinators; many histories have only the first.
const COORDINATOR_PORTS: [u16; 2] = [7070, 7071];
/// File of the metadata on the disks of the coordinator.
pub(super) const METADATA: &str = "/metadata.redb";
const JOIN_SECRET: &str = "simulation";

type Failed = Box<dyn Error + Send + Sync>;

/// Returns the addresses of the coordinators.
pub(super) fn coordinators(count: usize) -> Vec<String> {
    COORDINATOR_PORTS[..count].iter().map(|port| format!("{COORDINATOR}:{port}")).collect()
}

/// A machine that runs one server, or all coordinators of a cluster on one store; its disks survive
/// crashes.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: &'static str,
    pub(super) disks: SimFs,
    pub(super) clock: SimClock,
    /// Hung disks.
    pub(super) stalls: Stalls,
    /// Number of coordinators in the cluster.
    coordinators: usize,
    kind: Disks,
    seed: u64,
    lives: AtomicU64,
    /// Set while it cannot be started.
    is_away: AtomicBool,
    trace: Trace,
    /// The newest write level that its release reads.
    level: Mutex<Level>,
    /// Error that ended its last life, if any.
    failure: Mutex<Option<ErrorCode>>,
    crash_at_raise: Mutex<Option<Arc<RaiseCrash>>>,
    /// Older metadata that is to replace that of the coordinator when it starts.
    backup: Mutex<Option<SimFs>>,
    /// Ends the current life cleanly; `None` once requested.
    stop: Mutex<Option<Trigger>>,
    /// Network of the current life.
    network: Mutex<SimNetwork>,
    /// Problem with the metadata, if any.
    problem: Mutex<Option<String>>,
    /// Commits of the coordinator.
    pub(super) observed: Arc<Observed>,
    /// Holders of the worker lease.
    pub(super) lease: Arc<LeaseHolders>,
}

/// Time after which an operation makes its disk slow, and hung.
const SLOW_AFTER: Duration = Duration::from_secs(1);
const HUNG_AFTER: Duration = Duration::from_secs(3);
/// Simulated time between two checks of the metadata.
const CHECK_EVERY: Duration = Duration::from_millis(100);

impl Machine {
    pub(super) fn new(
        name: &'static str,
        coordinators: usize,
        kind: Disks,
        seed: u64,
        trace: Trace,
    ) -> Arc<Self> {
        let disks = SimFs::new();
        Arc::new(Self {
            name,
            disks,
            clock: SimClock::default(),
            stalls: Stalls::default(),
            coordinators,
            kind,
            seed,
            lives: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            trace,
            level: Mutex::default(),
            failure: Mutex::default(),
            crash_at_raise: Mutex::default(),
            backup: Mutex::default(),
            stop: Mutex::default(),
            network: Mutex::default(),
            problem: Mutex::default(),
            observed: Arc::default(),
            lease: Arc::default(),
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
        self.stalls.end_process();
    }

    /// Kills the server: what it wrote stays, durable or not.
    pub(super) fn kill(&self, sim: &mut Sim<'_>) {
        if sim.is_host_running(self.name) {
            lock(&self.network).end();
            // Operations of tasks being dropped do not reach the disks.
            self.disks.stop_at(self.disks.operations());
            sim.crash(self.name);
            self.disks.end_process();
            self.stalls.end_process();
        }
    }

    /// Takes the machine away for good, or brings it back; it does not start meanwhile.
    pub(super) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    /// Leaves this many bytes on its disks; `None` for plenty.
    pub(super) fn fill(&self, left: Option<u64>) {
        let space = self.disks.space(Path::new("/"));
        let taken = space.map_or(0, |space| space.total - space.available);
        self.disks.set_capacity(left.map_or(1 << 40, |left| taken + left));
    }

    /// Starts the machine unless it runs or is away.
    pub(super) fn start(&self, sim: &mut Sim<'_>) {
        if !sim.is_host_running(self.name) && !self.is_away.load(Ordering::Relaxed) {
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

        let mut engine = match self.backup() {
            Some(backup) => self.restored(&backup).await?,
            None => open_metadata(&*self.fs()).await?,
        };
        if let Some(crash) = lock(&self.crash_at_raise).clone().filter(|_| !is_new) {
            engine = Arc::new(CrashingEngine { inner: engine, disks: self.disks.clone(), crash });
        }
        engine = Arc::new(ObservedEngine::new(engine, self.disks.clone(), self.observed.clone()));
        engine = Arc::new(StaleLeaseEngine { inner: engine, holders: self.lease.clone() });
        let settings = Settings {
            http_listen: String::new(),
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
        let mut services = Vec::new();
        for port in &COORDINATOR_PORTS[..self.coordinators] {
            let settings = Settings {
                listen: format!("0.0.0.0:{port}"),
                advertise: format!("{COORDINATOR}:{port}"),
                ..settings.clone()
            };
            let components = Components {
                engine: engine.clone(),
                network: Arc::new(lock(&self.network).clone()),
                clock: Arc::new(self.clock.clone()),
                random: Arc::new(SeededRandom::new(random.below(u64::MAX))),
            };
            let before = engine.snapshot().await?.revision();
            let service = match Service::start(settings, components).await {
                Err(error) if error.code() == ErrorCode::UnsupportedVersion => {
                    let after = engine.snapshot().await?.revision();
                    if after != before {
                        self.report(format!("a refused release committed: {before} to {after}"));
                    }
                    return Err(error.into());
                }
                started => started?,
            };
            services.push(service.run(shutdown.clone()));
        }
        tokio::select! {
            biased;
            ended = try_join_all(services) => Ok(ended.map(drop)?),
            failed = self.check(&*engine) => failed,
        }
    }

    /// Replaces the metadata by a copy at the next start.
    pub(super) fn restore(&self, sim: &mut Sim<'_>, backup: SimFs) {
        *lock(&self.backup) = Some(backup);
        self.crash(sim, None);
        self.observed.forget();
        self.start(sim);
    }

    fn backup(&self) -> Option<SimFs> {
        lock(&self.backup).clone()
    }

    /// Makes new metadata from a copy, as an administrator does who restores one.
    async fn restored(&self, backup: &SimFs) -> Result<Arc<dyn Engine>, Failed> {
        self.disks.lose(Path::new(METADATA));
        let (source, target) = (open_metadata(backup).await?, open_metadata(&*self.fs()).await?);
        migrate(&*source, &*target, &|_| ()).await?;
        *lock(&self.backup) = None;
        Ok(target)
    }

    /// Checks all records when they have changed. Ends when it finds a problem; what cannot be read
    /// while disks fail is none.
    async fn check(&self, engine: &dyn Engine) -> Result<(), Failed> {
        let mut checked = None;
        loop {
            tokio::time::sleep(CHECK_EVERY).await;
            let Ok(snapshot) = engine.snapshot().await else { continue };
            let revision = snapshot.revision();
            if checked == Some(revision) {
                continue;
            }
            match work_keys::problems(engine).await {
                Ok(None) => checked = Some(revision),
                Ok(Some(found)) => {
                    self.report(found.clone());
                    return Err(found.into());
                }
                Err(_) => {}
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
        use dfs_datanode::{Components, Disk, Service, Settings};

        let settings = Settings {
            listen: "0.0.0.0:7080".to_owned(),
            http_listen: String::new(),
            advertise: format!("{}:7080", self.name),
            coordinators: coordinators(self.coordinators),
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
        let mut config = Config::new(DISKS.map(Into::into));
        config.headroom_percent = settings.headroom_percent;
        config.headroom_bytes_min = settings.headroom_bytes_min;
        config.high_watermark_percent = settings.high_watermark_percent;
        config.slow_after = SLOW_AFTER;
        config.hung_after = HUNG_AFTER;
        config.level = settings.level;
        let pool = Pool::stallable(&self.stalls);
        let store = DiskStore::open(config, self.fs(), pool.clone(), random.clone()).await;
        let store = Arc::new(store.map_err(dfs_datanode::Error::from)?);
        let network = Arc::new(lock(&self.network).clone());
        let components = Components { network, store, pool, random };
        let service = Service::start(settings, components).await?;
        service.run(shutdown).await;
        Ok(())
    }
}

async fn open_metadata(fs: &dyn Fs) -> Result<Arc<dyn Engine>, Failed> {
    let backend = FsBackend::open(fs, Path::new(METADATA))?;
    let options = Options { cache_bytes: 1 << 20, execution: Execution::Inline };
    Ok(Arc::new(RedbEngine::with_backend(backend, options).await?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The code of an error with which a server ended.
fn code_of(error: &(dyn Error + Send + Sync + 'static)) -> Option<ErrorCode> {
    let coordinator = error.downcast_ref().map(dfs_coordinator::Error::code);
    coordinator.or_else(|| error.downcast_ref().map(dfs_datanode::Error::code))
}

//! An upgrade within a history: machines are replaced one by one by the newer release, the write
//! level is raised, and the older release no longer starts.
//!
//! ```text
//!  runner                          client
//!  replaces each machine
//!    Replaced ────────────────────► finalizes, waits for the level, writes at it
//!                                   heals, reads everything
//!  starts the older release ◄────── Downgrade
//!    Refused ─────────────────────► reads everything again
//! ```
//!
//! Both releases are this build: the older one reads levels up to the newest, the newer one reads
//! [`Level::REHEARSAL`].

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{Fs, Opening};
use dfs_metadata::conformance::ForwardingEngine;
use dfs_metadata::engine::{Commit, Engine, EngineError, Outcome};
use dfs_types::{ErrorCode, Level, Random, SeededRandom, Sha256};
use turmoil::Sim;

use super::host::Machine;
use super::trace::Trace;

/// The first machine is replaced after this time, in simulated milliseconds.
const FIRST: u64 = 3_000;
/// A machine whose release cannot read the cluster ends within this time.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);
/// Key of the record that holds the write level.
const FORMAT: &[u8] = b"s/format";

/// Stages of an upgrade. Each is entered by the runner or by the client, and awaited by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Machines run the older release, or some of them the newer one.
    Mixed,
    /// Every machine runs the newer release.
    Replaced,
    /// The cluster is healed and writes the newer level: the older release may be tried.
    Downgrade,
    /// The older release refused to start and changed nothing.
    Refused,
}

/// State shared by an upgrade and the client.
#[derive(Debug)]
pub(super) struct Progress(Mutex<Stage>);

impl Progress {
    pub(super) fn stage(&self) -> Stage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}

/// A crash of the coordinator at one of the commits that raise the level.
#[derive(Debug)]
pub(super) struct RaiseCrash {
    /// Commits of the record before the fatal one; beyond any number of them there is no crash.
    commits_left: AtomicU64,
    /// True to crash after the commit is durable, rather than before.
    is_after: bool,
    has_struck: AtomicBool,
}

impl RaiseCrash {
    fn plan(random: &SeededRandom) -> Self {
        let commits_left = AtomicU64::new(random.below(3));
        let is_after = random.below(2) == 0;
        Self { commits_left, is_after, has_struck: AtomicBool::new(false) }
    }

    /// Returns true if the next commit of the record is the fatal one.
    fn strikes(&self) -> bool {
        let left = self.commits_left.load(Ordering::Relaxed);
        self.commits_left.store(left.wrapping_sub(1), Ordering::Relaxed);
        left == 0
    }
}

/// The metadata of a machine whose disks fail at a commit that raises the level.
pub(super) struct CrashingEngine {
    pub(super) inner: Arc<dyn Engine>,
    pub(super) disks: SimFs,
    pub(super) crash: Arc<RaiseCrash>,
}

#[async_trait]
impl ForwardingEngine for CrashingEngine {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    async fn forward_commits(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        let mut writes = commits.iter().flat_map(|commit| &commit.writes);
        if !writes.any(|write| write.key() == FORMAT) || !self.crash.strikes() {
            return self.inner.commit_batch(commits).await;
        }
        self.crash.has_struck.store(true, Ordering::Relaxed);
        let fail = || self.disks.stop_at(self.disks.operations());
        if !self.crash.is_after {
            fail();
        }
        let outcomes = self.inner.commit_batch(commits).await;
        fail();
        outcomes
    }
}

#[derive(Debug, Clone, Copy)]
enum Action {
    /// Stops a machine, which is to start as the newer release.
    Replace(usize),
    /// Ends a machine whose disks have failed.
    Crash(usize),
    /// Starts a machine unless a fault has started it.
    Start(usize),
    /// Every machine was replaced.
    Replaced,
}

/// A start of the older release, with the previous state of its disks.
struct Trial {
    host: usize,
    disks: BTreeMap<PathBuf, Sha256>,
    until: Duration,
}

/// The runner's side of an upgrade.
pub(super) struct Upgrade {
    machines: Vec<Arc<Machine>>,
    actions: BTreeMap<u64, Vec<Action>>,
    /// `None` once handled.
    crash: Option<Arc<RaiseCrash>>,
    /// Machines on which the older release is still to be tried.
    trials: VecDeque<usize>,
    trial: Option<Trial>,
    random: SeededRandom,
    trace: Trace,
    progress: Arc<Progress>,
    /// Crashes of the coordinator while the level was raised.
    pub(super) crashes: u64,
}

impl Upgrade {
    /// Plans an upgrade of the machines, the first of which is the coordinator, if this seed has
    /// one: a third of them do.
    pub(super) fn plan(seed: u64, machines: &[Arc<Machine>], trace: &Trace) -> Option<Self> {
        let random = SeededRandom::new(seed);
        if random.below(3) > 0 {
            return None;
        }
        let mut order: Vec<_> = (0..machines.len()).collect();
        let mut actions: BTreeMap<u64, Vec<Action>> = BTreeMap::new();
        let mut add = |at, action| actions.entry(at).or_default().push(action);
        let mut at = FIRST + random.below(3_000);
        while !order.is_empty() {
            let host = order.swap_remove(random.below(order.len() as u64) as usize);
            add(at, Action::Replace(host));
            at += 400 + random.below(1_000);
            add(at, Action::Start(host));
            at += 300 + random.below(1_500);
        }
        add(at, Action::Replaced);
        let crash = Arc::new(RaiseCrash::plan(&random));
        machines[0].crash_at_raise(crash.clone());
        let datanode = 1 + random.below(machines.len() as u64 - 1) as usize;
        Some(Self {
            machines: machines.to_vec(),
            actions,
            crash: Some(crash),
            trials: VecDeque::from([0, datanode]),
            trial: None,
            random,
            trace: trace.clone(),
            progress: Arc::new(Progress(Mutex::new(Stage::Mixed))),
            crashes: 0,
        })
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Carries out what is due. Fails when the older release was not refused, or did harm.
    pub(super) fn tick(&mut self, sim: &mut Sim<'_>) -> Result<(), String> {
        let now = sim.elapsed();
        while let Some(entry) = self.actions.first_entry()
            && Duration::from_millis(*entry.key()) <= now
        {
            for action in entry.remove() {
                self.apply(sim, action);
            }
        }
        if self.crash.as_ref().is_some_and(|crash| crash.has_struck.load(Ordering::Relaxed)) {
            self.crash = None;
            self.crashes += 1;
            self.trace.note_at(now, "the disks of coordinator fail while the level is raised");
            let at = now.as_millis() as u64 + self.random.below(500);
            self.actions.entry(at).or_default().push(Action::Crash(0));
            let at = at + 100 + self.random.below(2_000);
            self.actions.entry(at).or_default().push(Action::Start(0));
        }
        if self.progress.stage() == Stage::Downgrade { self.downgrade(sim, now) } else { Ok(()) }
    }

    fn apply(&mut self, sim: &mut Sim<'_>, action: Action) {
        match action {
            Action::Replace(host) => {
                self.machines[host].set_level(Level::REHEARSAL);
                self.note(sim, host, "is replaced by the newer release");
                self.machines[host].stop();
            }
            Action::Crash(host) => {
                self.note(sim, host, "crashes");
                self.machines[host].crash(sim, None);
            }
            Action::Start(host) => {
                let machine = &self.machines[host];
                if machine.is_stopping() {
                    // It has not ended within its time, or by a fault.
                    machine.crash(sim, None);
                }
                self.note(sim, host, "is started");
                machine.start(sim);
            }
            Action::Replaced => self.progress.enter(Stage::Replaced),
        }
    }

    fn note(&self, sim: &Sim<'_>, host: usize, what: &str) {
        self.trace.note_at(sim.elapsed(), format_args!("{} {what}", self.machines[host].name));
    }

    /// Tries the older release on one machine after the other, each of which then continues as the
    /// newer one.
    fn downgrade(&mut self, sim: &mut Sim<'_>, now: Duration) -> Result<(), String> {
        let Some(Trial { host, disks, until }) = self.trial.take() else {
            let Some(host) = self.trials.pop_front() else {
                self.progress.enter(Stage::Refused);
                return Ok(());
            };
            self.note(sim, host, "is started as the older release");
            let machine = &self.machines[host];
            machine.crash(sim, None);
            machine.set_level(Level::NEWEST);
            let disks = content(&machine.disks, "/");
            machine.start(sim);
            self.trial = Some(Trial { host, disks, until: now + REFUSED_WITHIN });
            return Ok(());
        };
        let machine = &self.machines[host];
        let name = machine.name;
        if sim.is_host_running(name) {
            if now >= until {
                return Err(format!("the older release of {name} keeps running"));
            }
            self.trial = Some(Trial { host, disks, until });
            return Ok(());
        }
        if machine.failure() != Some(ErrorCode::UnsupportedVersion) {
            return Err(format!("the older release of {name} ended with {:?}", machine.failure()));
        }
        // The engine writes to its file when it opens; what the coordinator commits, the machine
        // checks itself.
        if host > 0 && content(&machine.disks, "/") != disks {
            return Err(format!("the older release of {name} has changed its disks"));
        }
        machine.set_level(Level::REHEARSAL);
        self.note(sim, host, "is started as the newer release");
        machine.start(sim);
        Ok(())
    }
}

/// The hashes of all files.
fn content(disks: &SimFs, folder: impl AsRef<Path>) -> BTreeMap<PathBuf, Sha256> {
    let mut all = BTreeMap::new();
    for name in disks.list(folder.as_ref()).unwrap_or_default() {
        let path = folder.as_ref().join(name);
        let file = disks.open(&path, Opening::Existing);
        let read = file.and_then(|file| file.read_at(0, file.length()? as usize));
        match read {
            Ok(bytes) => {
                all.insert(path, Sha256::of(&bytes));
            }
            Err(_) => all.extend(content(disks, path)),
        }
    }
    all
}

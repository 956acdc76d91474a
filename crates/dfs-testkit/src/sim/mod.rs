//! A whole cluster in one thread, under one seed: a coordinator, datanodes of two disks and a client
//! with the SDK, on simulated sockets, disks, time and randomness.
//!
//! Machines crash and lose unsynced data, links are cut, delayed and slowed down, the clock jumps,
//! and the disks of one datanode are damaged, while workers put, read, rename, list and delete.
//! Then everything is healed, and the cluster must converge. [`run`] returns which of the
//! `invariants` was violated, if any. Some seeds also upgrade the cluster, see `upgrade`, or set its
//! metadata back, see `restoration`.
//! The same seed always gives the same run, so that failures can be reproduced.

mod administration;
mod damage;
mod disk;
mod fault_counts;
mod fault_event;
mod faults;
mod healing;
mod host;
mod inspection;
mod invariants;
mod model;
mod network;
mod observed_engine;
mod restoration;
mod stale_lease;
mod time;
mod trace;
mod upgrade;
mod workload;

use std::cell::Cell;
use std::fmt;
use std::panic;
use std::sync::{Arc, Once};
use std::time::Duration;

use dfs_client::Client;
use dfs_streamer::Hashing;
use dfs_types::{Random as _, SeededRandom, Sha256};

use self::damage::Damage;
use self::faults::{Faults, LATENCY};
use self::host::{CLIENT, COORDINATOR, DATANODES, Machine, coordinators};
use self::inspection::{Inspector, after_power_failure};
use self::invariants::{converged, durable_replicas, orphans, sound_replica};
use self::restoration::Held;
use self::trace::Trace;
use self::upgrade::Upgrade;
use self::workload::{Phase, Shared};

pub use damage::DamageCounts;
pub use disk::FsBackend;
pub use fault_counts::FaultCounts;
pub use network::SimNetwork;
pub use time::SimClock;

/// Maximum simulated time of a run.
const LONGEST: Duration = Duration::from_mins(10);
/// Simulated time between two steps of a host. At 1 ms, half of the time of a run is idle steps.
const TICK: Duration = Duration::from_millis(4);
/// Simulated time between two inspections of all disks.
const INSPECT_EVERY: Duration = Duration::from_secs(1);
/// How far the clock jumps at the end, so that every upload that was not confirmed has expired, also
/// one that was planned while the clock was hours ahead.
const END_OF_UPLOADS: Duration = Duration::from_hours(6);
/// Time after that jump within which nothing is left but what records name: until the clock is
/// confirmed, uploads are reaped, and two cycles have proven what is an orphan.
const COLLECTED_WITHIN: Duration = Duration::from_secs(40);
/// Deadline of a client's calls.
const DEADLINE: Duration = Duration::from_secs(15);

/// Behaviour of the disks of all machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// Synced data survives a crash.
    Honest,
    /// Synced data may be lost, which a simulation must detect.
    Lying,
}

/// Summary of a successful run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its seed.
    pub seed: u64,
    /// Calls that workers made.
    pub calls: u64,
    /// Puts that were acknowledged.
    pub puts: u64,
    /// Reads.
    pub reads: u64,
    /// Changes that failed definitively.
    pub failed: u64,
    /// Changes of unknown outcome.
    pub unknown: u64,
    /// Faults injected.
    pub faults: FaultCounts,
    /// Damage done to the disks of one datanode.
    pub damage: DamageCounts,
    /// True if the write level was raised, starting with a cluster of mixed releases.
    pub is_upgraded: bool,
    /// Crashes of the coordinator while raising the level.
    pub raise_crashes: u64,
    /// Simulated time.
    pub elapsed: Duration,
    /// Everything that happened, in order.
    pub trace: Vec<String>,
}

impl Summary {
    /// Returns a hash of the trace, including times.
    pub fn trace_hash(&self) -> Sha256 {
        Sha256::of(self.trace.join("\n").as_bytes())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, calls, puts, reads, failed, unknown, faults, damage, elapsed, .. } = self;
        let seconds = elapsed.as_secs();
        let upgrade = match (self.is_upgraded, self.raise_crashes) {
            (false, _) => String::new(),
            (true, 0) => "; write level raised".to_owned(),
            (true, crashes) => format!("; write level raised with {crashes} crash"),
        };
        write!(
            f,
            "seed {seed}: {calls} calls ({puts} puts, {failed} failed, {unknown} unknown), \
             {reads} reads in {seconds} s; {faults}; {damage}{upgrade}; trace {}",
            self.trace_hash()
        )
    }
}

/// Failure of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}: {what}")]
pub struct Failure {
    /// The seed, which reproduces it.
    pub seed: u64,
    /// The violation.
    pub what: String,
    /// Everything that happened before, in order.
    pub trace: Vec<String>,
}

/// Runs the simulation of a seed.
pub fn run(seed: u64) -> Result<Summary, Failure> {
    run_on(seed, Disks::Honest)
}

/// Runs the simulation of a seed on these disks.
pub fn run_on(seed: u64, disks: Disks) -> Result<Summary, Failure> {
    count_panics();
    let panics = PANICS.get();
    let shared = Arc::new(Shared::default());
    let trace = shared.trace.clone();
    let result = simulate(seed, disks, &shared, &trace);
    let what = match result {
        Ok(Outcome { elapsed, faults, damage, is_upgraded, raise_crashes })
            if PANICS.get() == panics =>
        {
            let counts = *shared.counts();
            return Ok(Summary {
                seed,
                calls: counts.calls,
                puts: counts.puts,
                reads: counts.reads,
                failed: counts.failed,
                unknown: counts.unknown,
                faults,
                damage,
                is_upgraded,
                raise_crashes,
                elapsed,
                trace: trace.lines(),
            });
        }
        Ok(_) => "something panicked".to_owned(),
        Err(what) => what,
    };
    Err(Failure { seed, what, trace: trace.lines() })
}

/// End of a simulation without a violation.
struct Outcome {
    elapsed: Duration,
    faults: FaultCounts,
    damage: DamageCounts,
    is_upgraded: bool,
    raise_crashes: u64,
}

fn simulate(
    seed: u64,
    disks: Disks,
    shared: &Arc<Shared>,
    trace: &Trace,
) -> Result<Outcome, String> {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .epoch(time::begin())
        .simulation_duration(LONGEST)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(*LATENCY.start()))
        .max_message_latency(Duration::from_millis(*LATENCY.start()))
        .tcp_capacity(1_024);
    let mut sim = builder.build();

    let coordinator_count = 1 + usize::from(SeededRandom::new(seed ^ 0xc0_0f).below(3) == 0);
    let names = [COORDINATOR].into_iter().chain(DATANODES);
    let machines: Vec<_> = (1..)
        .zip(names)
        .map(|(number, name)| {
            let seed = seed.wrapping_mul(0x1_0001).wrapping_add(number << 32);
            Machine::new(name, coordinator_count, disks, seed, trace.clone())
        })
        .collect();
    for machine in &machines {
        let machine = machine.clone();
        sim.host(machine.name, move || machine.clone().live());
    }
    let components = dfs_client::Components {
        network: Arc::new(SimNetwork::default()),
        clock: Arc::new(SimClock::default()),
        random: Arc::new(SeededRandom::new(seed ^ 0x00c1_1e27)),
        hashing: Hashing::Inline,
    };
    let client = Client::builder()
        .coordinators(coordinators(coordinator_count))
        .deadline(DEADLINE)
        .components(components)
        .connect_lazy()
        .map_err(|error| error.to_string())?;
    let mut upgrade = Upgrade::plan(seed ^ 0x0001_e7e1, &machines, trace);
    let progress = upgrade.as_ref().map(Upgrade::progress);
    let mut damage = Damage::plan(seed ^ 0xda3a_9e00, &machines[1..], shared.clone());
    let (work, one_replica_from) = (shared.clone(), damage.one_replica_from);
    sim.client(CLIENT, async move {
        Ok(workload::run(client, work, progress, one_replica_from, seed).await?)
    });

    let all = machines.clone();
    let mut faults = Faults::plan(seed ^ 0xfa17, machines, trace.clone());
    let mut inspector = Inspector::default();
    let (mut backup, mut held) = (None, Held::default());
    let mut inspect_at = Duration::ZERO;
    let mut collected_until = Duration::MAX;
    loop {
        if let Some(problem) = all[0].problem() {
            return Err(problem);
        }
        if sim.step().map_err(|error| error.to_string())? {
            return Ok(Outcome {
                elapsed: sim.elapsed(),
                faults: faults.begun,
                damage: damage.done,
                is_upgraded: upgrade.is_some(),
                raise_crashes: upgrade.map_or(0, |upgrade| upgrade.crashes),
            });
        }
        if let Some(upgrade) = &mut upgrade {
            upgrade.tick(&mut sim)?;
        }
        damage.replace_lost(&mut sim);
        let now = sim.elapsed();
        match shared.phase() {
            Phase::Faults => {
                if faults.tick(&mut sim) {
                    shared.note_crash_at_move();
                }
                damage.tick(&mut sim);
            }
            Phase::Healing => {
                damage.heal(&mut sim);
                faults.heal(&mut sim);
                shared.enter(Phase::Healed);
            }
            Phase::Healed
            | Phase::BackedUp
            | Phase::Restored
            | Phase::Acknowledged
            | Phase::Collecting
            | Phase::Over => {}
            Phase::Backup => {
                trace.note_at(now, "the metadata is copied");
                backup = Some((after_power_failure(&all[0].disks), shared.model().clone()));
                shared.enter(Phase::BackedUp);
            }
            Phase::Restore => {
                if let Some((disks, model)) = backup.take() {
                    trace.note_at(now, "the metadata is set back");
                    all[0].restore(&mut sim, disks);
                    shared.model().set_back(&model);
                }
                shared.enter(Phase::Restored);
            }
            Phase::Whole => {
                trace.note_at(now, "the clock jumps beyond the end of all uploads");
                all[0].clock.set_ahead(END_OF_UPLOADS);
                collected_until = now + COLLECTED_WITHIN;
                shared.enter(Phase::Collecting);
            }
        }
        if now < inspect_at {
            continue;
        }
        inspect_at = now + INSPECT_EVERY;
        let Some(durable) = inspector.read(&all)? else { continue };
        sound_replica::check(&durable)?;
        durable_replicas::check(&durable, |host| damage.has_damaged(host))?;
        if shared.phase() == Phase::Restored {
            held.check(&durable)?;
        }
        if shared.phase() == Phase::Collecting {
            match orphans::check(&durable).and_then(|()| converged::check(&durable)) {
                Ok(()) => {
                    trace.note_at(now, "the disks hold what the records name");
                    shared.enter(Phase::Over);
                }
                Err(left) if now >= collected_until => return Err(left),
                Err(_) => {}
            }
        }
    }
}

thread_local! {
    /// Number of panics of this thread, including those caught by a runtime.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

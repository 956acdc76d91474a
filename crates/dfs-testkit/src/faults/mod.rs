//! Several coordinators on etcd under faults: real processes, clients that make calls continuously,
//! and a checker that must be able to explain every reply.
//!
//! Three coordinators, three members of etcd and three datanodes, each in a separate network if
//! possible. A run consists of rounds. In each, clients make calls below fresh directories, while
//! one fault after the other is injected and healed; then everything is read, and the history is
//! checked. What the rounds leave is read again at the end of the run.

mod checker;
mod disks;
mod history;
mod injection;
mod load;
mod model;
mod network;
mod report;
mod system;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dfs_types::{Random as _, SeededRandom};
use tokio::task::JoinHandle;

use history::{Answer, Operation};
use injection::{Fault, hold};
use load::{Caller, GROUPS, Records};
use network::Networks;
pub use report::Report;
use report::Window;
use system::System;

use crate::process::wait_until;

/// Number of concurrent clients.
const CLIENTS: usize = 8;
/// Time without a fault before each one.
const QUIET: Duration = Duration::from_millis(1_500);
/// Time limit of calls in progress.
const CALLS_END_WITHIN: Duration = Duration::from_mins(2);
/// Log messages of servers that refuse work of an earlier epoch of the worker lease.
const REFUSALS: &[&str] = &["a step of a worker failed", "the order has lease epoch"];

/// Parameters of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `dfs`.
    pub binary: PathBuf,
    /// Determines the calls and the faults, though not their exact timing.
    pub seed: u64,
    /// Time during which faults are injected; the run takes slightly longer.
    pub time: Duration,
    /// Only faults whose names contain this; all when empty.
    pub fault: String,
    /// Directory for the logs of all processes after a failure.
    pub keep: PathBuf,
}

/// Failure of a run.
#[derive(Debug)]
pub struct Failure {
    /// The violation.
    pub what: String,
    /// The report up to then.
    pub report: Report,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.report, self.what)
    }
}

/// Runs on a thread that does not end before the run, and prints progress to stdout.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let networks = match Networks::new() {
        Ok(networks) => Some(networks),
        Err(why) => {
            println!("no partitions in this run: {why}");
            None
        }
    };
    let has_cables = networks.is_some();
    let system = System::start(options.binary.clone(), networks, options.seed);
    let records = Arc::new(Records::new());
    let report = Report::new(has_cables);
    let random = SeededRandom::new(options.seed);
    let (seed, named) = (options.seed, options.fault.clone());
    let mut run = Run { system, records, report, random, seed, named, left: Vec::new() };
    let what = run.rounds(options.time).and_then(|()| run.end());
    let Run { system, mut report, .. } = run;
    report.epochs = system.epochs().len();
    report.refused = REFUSALS.iter().map(|text| system.logged(text)).sum();
    let complaints = report.complaints();
    let what = match what {
        Ok(()) if complaints.is_empty() => return Ok(report),
        Ok(()) => complaints.join("\n"),
        Err(what) => format!("{}\n{what}", complaints.join("\n")),
    };
    let kept = match system.keep_logs(&options.keep) {
        Ok(()) => format!("the logs are in {}", options.keep.display()),
        Err(error) => format!("the logs could not be kept: {error}"),
    };
    Err(Failure { what: format!("{what}\n{kept}"), report })
}

struct Run {
    system: System,
    records: Arc<Records>,
    report: Report,
    random: SeededRandom,
    seed: u64,
    named: String,
    /// Reads at the end of each round.
    left: Vec<(u32, Vec<Operation>)>,
}

impl Run {
    fn rounds(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.round(until)?;
            self.report.rounds += 1;
        }
        Ok(())
    }

    fn caller(&self, client: usize, round: u32) -> Caller {
        Caller { client: self.system.client(client), round, records: self.records.clone() }
    }

    fn round(&mut self, until: Instant) -> Result<(), String> {
        let round = self.report.rounds;
        let first = self.caller(0, round);
        let made = self.system.runtime.block_on(first.make_groups());
        made.map_err(|error| format!("the directories of a round: {error}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let seed = self.seed ^ self.random.below(u64::MAX);
                let calling = self.caller(client, round).run(seed, stop.clone());
                self.system.runtime.spawn(calling)
            })
            .collect();
        let (windows, outcome) = self.faults(until);
        stop.store(true, Ordering::Relaxed);
        if !wait_until(CALLS_END_WITHIN, || clients.iter().all(JoinHandle::is_finished)) {
            return Err(format!("calls hang for {CALLS_END_WITHIN:?} without a fault"));
        }
        for client in clients {
            let ended = self.system.runtime.block_on(client);
            ended.map_err(|error| format!("a client: {error}"))?;
        }
        let mut history = self.records.take();
        self.report.add(&history, &self.records.take_failed(), &windows);
        outcome?;
        let looked = self.look(round)?;
        history.extend(looked.iter().cloned());
        let checked = Instant::now();
        check(&history)?;
        println!(
            "{:>8.1} s: round {round}: {} calls are explained (in {:?})",
            self.records.now() as f64 / 1e6,
            history.len(),
            checked.elapsed()
        );
        self.left.push((round, looked));
        Ok(())
    }

    /// Injects one fault after the other, until each was injected or the time is up.
    fn faults(&mut self, until: Instant) -> (Vec<Window>, Result<(), String>) {
        let mut windows = Vec::new();
        let has_cables = self.system.networks.is_some();
        for fault in Fault::deck(&self.random, has_cables, &self.named) {
            hold(QUIET);
            if Instant::now() >= until {
                break;
            }
            let from = self.records.now();
            let healed = fault.inject(&mut self.system, &self.random);
            let after = self.records.now();
            let whole = healed.and_then(|()| self.system.wait_until_whole());
            let to = self.records.now();
            println!(
                "{:>8.1} s: {fault} for {:.1} s, healthy {:.1} s later",
                from as f64 / 1e6,
                (after - from) as f64 / 1e6,
                (to - after) as f64 / 1e6
            );
            windows.push(Window { fault, from, to });
            if let Err(why) = whole {
                return (windows, Err(format!("{fault}: {why}")));
            }
        }
        (windows, Ok(()))
    }

    /// Reads everything of a round.
    fn look(&self, round: u32) -> Result<Vec<Operation>, String> {
        let caller = self.caller(0, round);
        self.system.runtime.block_on(caller.look());
        let failed = self.records.take_failed();
        match failed.first() {
            None => Ok(self.records.take()),
            Some(failed) => Err(format!("without a fault: {}", failed.what)),
        }
    }

    /// Checks the end state: what rounds left is unchanged, all replicas are restored, and no two
    /// coordinators ever worked under one epoch.
    fn end(&mut self) -> Result<(), String> {
        self.system.wait_until_full()?;
        let left = std::mem::take(&mut self.left);
        let mut files = 0;
        for (round, before) in left {
            let now = self.look(round)?;
            for (before, now) in before.iter().zip(&now) {
                if before.answer != now.answer {
                    return Err(format!("round {round}: \n{before}\nchanged to\n{now}"));
                }
                files += usize::from(matches!(now.answer, Answer::Read(..)));
            }
        }
        println!("{files} files are whole at the end");
        let epochs = self.system.epochs();
        // A coordinator that holds it again without another in between keeps its epoch.
        let is_shared = |pair: &&[(u64, usize)]| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1;
        match epochs.windows(2).find(is_shared) {
            Some(pair) => Err(format!("two coordinators held one epoch of the lease: {pair:?}")),
            None => Ok(()),
        }
    }
}

fn check(history: &[Operation]) -> Result<(), String> {
    for group in 0..GROUPS {
        let of_group = |operation: &&Operation| operation.group == group;
        let history: Vec<_> = history.iter().filter(of_group).cloned().collect();
        checker::check(&history)?;
    }
    Ok(())
}

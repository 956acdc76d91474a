//! Runs simulations: `sim --seed N` shows one completely, `sim --seeds A..B` the failures of many.
//! With `--bug NAME`, plants a bug, and ends successfully as soon as a seed finds it. `SIM_LOG=debug`
//! also prints the logs of all servers.

#![expect(clippy::print_stdout, reason = "prints its result")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_runtime::{LogFormat, init_logging};
use dfs_testkit::sim::{Failure, run};
use dfs_types::PlantedBug;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (words, bug) = match words[..] {
        [ref words @ .., "--bug", name] => {
            let Some(bug) = PlantedBug::ALL.into_iter().find(|bug| bug.name() == name) else {
                println!("the bugs are {}", PlantedBug::ALL.map(PlantedBug::name).join(", "));
                return ExitCode::from(2);
            };
            (words.to_vec(), Some(bug))
        }
        _ => (words, None),
    };
    let seeds = match words[..] {
        ["--seed", seed] => seed.parse().ok().map(|seed: u64| seed..seed.saturating_add(1)),
        ["--seeds", range] => parse_range(range),
        _ => None,
    };
    let Some(seeds) = seeds.filter(|seeds| !seeds.is_empty()) else {
        println!("usage: sim --seed N | --seeds A..B [--bug NAME]");
        return ExitCode::from(2);
    };
    if let Ok(level) = std::env::var("SIM_LOG") {
        init_logging(&level, LogFormat::Text).expect("SIM_LOG is a level");
    }
    if let Some(bug) = bug {
        return hunt(bug, seeds);
    }
    let shows_all = seeds.end - seeds.start == 1;
    let failures = run_all(seeds, shows_all, false);
    for Failure { seed, what, trace } in &failures {
        println!("{}\nseed {seed} failed: {what}\n", trace.join("\n"));
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse_range(text: &str) -> Option<Range<u64>> {
    let (begin, end) = text.split_once("..")?;
    Some(begin.parse().ok()?..end.parse().ok()?)
}

/// Plants a bug and runs seeds until one finds it.
#[cfg(feature = "planted-bugs")]
fn hunt(bug: PlantedBug, seeds: Range<u64>) -> ExitCode {
    bug.plant();
    let first = seeds.start;
    let found = run_all(seeds, false, true).into_iter().min_by_key(|failure| failure.seed);
    let Some(Failure { seed, what, .. }) = found else {
        println!("{} was not found", bug.name());
        return ExitCode::FAILURE;
    };
    println!(
        "{} was found by seed {seed}, the {}. of the seeds: {what}",
        bug.name(),
        seed - first + 1
    );
    ExitCode::SUCCESS
}

#[cfg(not(feature = "planted-bugs"))]
fn hunt(_: PlantedBug, _: Range<u64>) -> ExitCode {
    println!("--bug needs the feature planted-bugs");
    ExitCode::from(2)
}

/// Runs each simulation on a thread, as many at a time as there are processors; until the first
/// failure, if asked to.
fn run_all(seeds: Range<u64>, shows_all: bool, until_failure: bool) -> Vec<Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failures) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let (upgrades, count) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let result = run(seed);
                    count.fetch_add(1, Ordering::Relaxed);
                    if result.as_ref().is_ok_and(|summary| summary.is_upgraded) {
                        upgrades.fetch_add(1, Ordering::Relaxed);
                    }
                    match result {
                        Ok(summary) if shows_all => {
                            println!("{}\n{summary}", summary.trace.join("\n"));
                        }
                        Ok(summary) => println!("{summary}"),
                        Err(failure) => {
                            println!("{failure}");
                            failures.lock().expect("no thread panics").push(failure);
                            if until_failure {
                                next.store(u64::MAX / 2, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
    });
    let (count, upgrades) = (count.into_inner(), upgrades.into_inner());
    println!("{count} histories, {upgrades} of them raised the write level");
    failures.into_inner().expect("no thread panics")
}

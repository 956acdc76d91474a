//! Runs simulations: `sim --seed N` shows one completely, `sim --seeds A..B` the failures of many.

#![expect(clippy::print_stdout, reason = "prints its result")]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_testkit::sim::{Failure, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let seeds = match words[..] {
        ["--seed", seed] => seed.parse().ok().map(|seed: u64| seed..seed.saturating_add(1)),
        ["--seeds", range] => parse_range(range),
        _ => None,
    };
    let Some(seeds) = seeds.filter(|seeds| !seeds.is_empty()) else {
        println!("usage: sim --seed N | --seeds A..B");
        return ExitCode::from(2);
    };
    let shows_all = seeds.end - seeds.start == 1;
    let failures = run_all(seeds, shows_all);
    for Failure { seed, what, trace } in &failures {
        println!("{}\nseed {seed} failed: {what}\n", trace.join("\n"));
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse_range(text: &str) -> Option<Range<u64>> {
    let (begin, end) = text.split_once("..")?;
    Some(begin.parse().ok()?..end.parse().ok()?)
}

/// Runs each simulation on a thread, as many at a time as there are processors.
fn run_all(seeds: Range<u64>, shows_all: bool) -> Vec<Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failures) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let upgrades = AtomicU64::new(0);
    let count = seeds.end - seeds.start;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let result = run(seed);
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
                        }
                    }
                }
            });
        }
    });
    println!("{count} histories, {} of them raised the write level", upgrades.into_inner());
    failures.into_inner().expect("no thread panics")
}

//! The simulation: no seed finds a violation, every seed is reproducible, and a violation is
//! detected.

use std::io::Write as _;
use std::ops::Range;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_testkit::sim::{DamageCounts, Disks, Failure, FaultCounts, Summary, run, run_on};

/// Seeds of a run of the tests.
const SEEDS: u64 = 60;

/// Returns the seeds of this revision, so that each is tried with seeds of its own; those from 0 outside
/// of a repository.
fn seeds_of_revision() -> Range<u64> {
    let git = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let commit = git.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let number = commit.ok().and_then(|commit| u64::from_str_radix(commit.get(..8)?, 16).ok());
    let first = number.unwrap_or_default() * SEEDS;
    first..first + SEEDS
}

/// Runs seeds on as many threads as there are processors, up to the first violation. Returns results in
/// the order of seeds.
fn run_all(seeds: Range<u64>, disks: Disks) -> Vec<Result<Summary, Failure>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, results) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let result = run_on(seed, disks);
                    if result.is_err() {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                    results.lock().expect("no thread panics").push((seed, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no thread panics");
    results.sort_by_key(|(seed, _)| *seed);
    results.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn seeds_of_the_revision_find_no_violation() {
    let (mut puts, mut faults) = (0, FaultCounts::default());
    let mut damage = DamageCounts::default();
    let (mut upgrades, mut raise_crashes) = (0, 0);
    let seeds = seeds_of_revision();
    // Not captured like the output of a test that passes.
    writeln!(std::io::stderr(), "simulating the seeds {seeds:?}").expect("stderr is open");
    for result in run_all(seeds, Disks::Honest) {
        match result {
            Ok(summary) => {
                puts += summary.puts;
                faults += summary.faults;
                damage += summary.damage;
                upgrades += u64::from(summary.is_upgraded);
                raise_crashes += summary.raise_crashes;
            }
            Err(failure) => panic!("{}\n{failure}", failure.trace.join("\n")),
        }
    }
    assert!(puts > 1_000, "{puts} puts are too few");
    assert!(upgrades >= 5 && raise_crashes >= 1, "{upgrades} upgrades, {raise_crashes} crashes");
    // Each kind, as otherwise slow links alone would do.
    let counts = faults.all();
    assert!(counts.iter().all(|count| *count >= 2), "too few faults: {faults}");
    let DamageCounts { flips, losses, absences, rewinds, replacements } = damage;
    let is_enough = flips >= 10 && losses >= 5 && absences + rewinds + replacements >= 3;
    assert!(is_enough, "too little damage: {damage}");
}

#[test]
fn seed_is_reproducible() {
    let first = run_all(0..4, Disks::Honest);
    for before in first.into_iter().map(Result::unwrap) {
        let again = run(before.seed).unwrap();
        for (before, again) in before.trace.iter().zip(&again.trace) {
            assert_eq!(before, again);
        }
        assert_eq!(before, again);
    }
}

#[test]
fn lying_disks_are_detected() {
    let results = run_all(0..10, Disks::Lying);
    assert!(results.iter().any(Result::is_err), "lost writes were not detected");
}

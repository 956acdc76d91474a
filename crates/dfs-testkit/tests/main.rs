//! The simulation: no seed finds a violation, every seed is reproducible, and a violation is
//! detected.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_testkit::sim::{DamageCounts, Disks, Failure, FaultCounts, Summary, run, run_on};

/// Runs seeds on as many threads as there are processors; returns results in the order of seeds.
fn run_all(seeds: std::ops::Range<u64>, disks: Disks) -> Vec<Result<Summary, Failure>> {
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
fn fifty_seeds_find_no_violation() {
    let (mut puts, mut faults) = (0, FaultCounts::default());
    let mut damage = DamageCounts::default();
    let (mut upgrades, mut raise_crashes) = (0, 0);
    for result in run_all(0..50, Disks::Honest) {
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
    assert!(upgrades >= 10 && raise_crashes >= 4, "{upgrades} upgrades, {raise_crashes} crashes");
    // Each kind, as otherwise slow links alone would do.
    let counts = faults.all();
    assert!(counts.iter().all(|count| *count >= 8), "too few faults: {faults}");
    let DamageCounts { flips, losses, absences, rewinds } = damage;
    let is_enough = flips >= 20 && losses >= 20 && absences >= 8 && rewinds >= 8;
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

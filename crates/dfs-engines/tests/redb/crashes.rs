//! Power cuts at every sync: acknowledged commits survive, and no commit survives partially.

use dfs_engines::Execution;
use dfs_engines::redb::RedbEngine;
use dfs_metadata::engine::{Engine, EngineError};
use dfs_types::{Random, SeededRandom};

use super::backend::Disk;
use super::{options, put, value, write};

const COMMITS: u64 = 12;

async fn open(disk: &Disk) -> Result<RedbEngine, EngineError> {
    RedbEngine::with_backend(disk.backend(), options(Execution::Inline)).await
}

/// Commits its number under two keys, and padding so that pages are freed and reused.
async fn commit(engine: &RedbEngine, number: u64) -> Result<(), EngineError> {
    let text = number.to_string();
    let padding = vec![number as u8; 3000];
    let writes = vec![put("a", &text), put(&format!("p/{}", number % 3), padding), put("z", &text)];
    write(engine, writes).await.map(drop)
}

/// Commits until the disk crashes; returns the last acknowledged number.
async fn run(disk: &Disk) -> u64 {
    let mut acknowledged = 0;
    let Ok(engine) = open(disk).await else { return 0 };
    for number in 1..=COMMITS {
        match commit(&engine, number).await {
            Ok(()) => acknowledged = number,
            Err(_) => break,
        }
    }
    // A crash does not close: writes of the drop go to a dead disk.
    assert!(disk.crashed() || acknowledged == COMMITS);
    acknowledged
}

/// Returns the number of the last commit found after a crash, or what is wrong.
async fn found(disk: &Disk) -> Result<u64, String> {
    let engine = open(disk).await.map_err(|error| format!("cannot be opened: {error}"))?;
    let read = async |key| -> Result<u64, String> {
        let value = value(&engine, key).await.map_err(|error| error.to_string())?;
        let text = value.map_or_else(|| "0".to_owned(), |v| String::from_utf8_lossy(&v).into());
        text.parse().map_err(|_| format!("{text:?} is no number"))
    };
    let (a, z) = (read("a").await?, read("z").await?);
    if a != z {
        return Err(format!("a torn commit: {a} and {z}"));
    }
    let snapshot = engine.snapshot().await.map_err(|error| error.to_string())?;
    snapshot.range(b"p/", b"", 10).await.map_err(|error| error.to_string())?;
    if snapshot.revision().0 != a {
        return Err(format!("revision {} with commit {a}", snapshot.revision()));
    }
    drop(snapshot);
    commit(&engine, a + 1).await.map_err(|error| format!("cannot commit: {error}"))?;
    Ok(a)
}

async fn number_of_syncs_in_a_run() -> (usize, usize) {
    let disk = Disk::default();
    drop(open(&disk).await.unwrap());
    let before = disk.syncs();
    let engine = open(&disk).await.unwrap();
    for number in 1..=COMMITS {
        commit(&engine, number).await.unwrap();
    }
    (before, disk.syncs())
}

/// Returns a disk with an empty store, as after the first start.
async fn fresh() -> Disk {
    let disk = Disk::default();
    drop(open(&disk).await.unwrap());
    Disk::of(disk.content())
}

#[tokio::test]
async fn acknowledged_commits_survive_a_crash_at_any_sync() {
    let (before, total) = number_of_syncs_in_a_run().await;
    assert!(total - before >= COMMITS as usize, "each commit syncs");
    for crash_at in 1..=total - before {
        for seed in 0..4 {
            let disk = fresh().await;
            disk.crash_at(crash_at);
            let acknowledged = run(&disk).await;
            let random = SeededRandom::new(seed);
            // Seed 0 loses all unsynced writes, the others keep some.
            let after = disk.after_crash(|_| seed > 0 && random.below(2) == 0);
            let found = found(&after).await.unwrap_or_else(|error| {
                panic!("crash at sync {crash_at}, seed {seed}: {error}");
            });
            assert!(
                found == acknowledged || found == acknowledged + 1,
                "crash at sync {crash_at}, seed {seed}: {acknowledged} acknowledged, {found} found"
            );
        }
    }
}

/// Counts syncs of a whole run after the first start: those of opening, and those that follow a
/// growth of the file.
async fn syncs_by_kind() -> (usize, Vec<usize>) {
    let disk = fresh().await;
    let engine = open(&disk).await.unwrap();
    let of_opening = disk.syncs();
    for number in 1..=COMMITS {
        commit(&engine, number).await.unwrap();
    }
    (of_opening, disk.growths())
}

#[tokio::test]
async fn ignored_sync_is_detected() {
    let (before, total) = number_of_syncs_in_a_run().await;
    let mut harmless = Vec::new();
    for ignored in 1..=total - before {
        let mut wrong = false;
        for crash_at in ignored + 1..=ignored + 2 {
            for seed in 0..16 {
                let disk = fresh().await;
                disk.ignore(ignored);
                disk.crash_at(crash_at);
                let acknowledged = run(&disk).await;
                let random = SeededRandom::new(seed);
                let after = disk.after_crash(|_| seed > 0 && random.below(2) == 0);
                wrong |= !matches!(found(&after).await, Ok(found) if found >= acknowledged);
            }
        }
        if !wrong {
            harmless.push(ignored);
        }
    }
    // Opening syncs a mark that the store is in use; until the next sync, which makes it durable as
    // well, nothing is overwritten that a store without the mark refers to. A growth is synced by
    // itself, and again by both syncs of the commit that needed the space.
    let (of_opening, growths) = syncs_by_kind().await;
    assert_eq!((of_opening, growths.len()), (1, 1), "unexpected growths: {growths:?}");
    assert_eq!(harmless, [vec![1], growths].concat(), "of {}", total - before);
}

//! Power cuts at every sync: what was acknowledged is there, and nothing is there by halves.

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

/// Each commit writes its number under two keys, and pads so that pages are freed and used again.
async fn commit(engine: &RedbEngine, number: u64) -> Result<(), EngineError> {
    let text = number.to_string();
    let padding = vec![number as u8; 3000];
    let writes = vec![put("a", &text), put(&format!("p/{}", number % 3), padding), put("z", &text)];
    write(engine, writes).await.map(drop)
}

/// Commits until the disk crashes; the number of the last acknowledged commit.
async fn run(disk: &Disk) -> u64 {
    let mut acknowledged = 0;
    let Ok(engine) = open(disk).await else { return 0 };
    for number in 1..=COMMITS {
        match commit(&engine, number).await {
            Ok(()) => acknowledged = number,
            Err(_) => break,
        }
    }
    // A crash does not close: what the drop writes goes to a disk that does not answer.
    assert!(disk.crashed() || acknowledged == COMMITS);
    acknowledged
}

/// What the store holds after a crash: the number of the last commit, or why it is wrong.
async fn found(disk: &Disk) -> Result<u64, String> {
    let engine = open(disk).await.map_err(|error| format!("cannot be opened: {error}"))?;
    let read = async |key| -> Result<u64, String> {
        let value = value(&engine, key).await.map_err(|error| error.to_string())?;
        let text = value.map_or_else(|| "0".to_owned(), |v| String::from_utf8_lossy(&v).into());
        text.parse().map_err(|_| format!("{text:?} is no number"))
    };
    let (a, z) = (read("a").await?, read("z").await?);
    if a != z {
        return Err(format!("a half commit: {a} and {z}"));
    }
    let snapshot = engine.snapshot().await.map_err(|error| error.to_string())?;
    snapshot.range(b"p/", b"", 10).await.map_err(|error| error.to_string())?;
    if snapshot.revision().0 != a {
        return Err(format!("revision {} with commit {a}", snapshot.revision()));
    }
    drop(snapshot);
    commit(&engine, a + 1).await.map_err(|error| format!("cannot go on: {error}"))?;
    Ok(a)
}

async fn syncs_of_a_whole_run() -> (usize, usize) {
    let disk = Disk::default();
    drop(open(&disk).await.unwrap());
    let before = disk.syncs();
    let engine = open(&disk).await.unwrap();
    for number in 1..=COMMITS {
        commit(&engine, number).await.unwrap();
    }
    (before, disk.syncs())
}

/// A disk with an empty store on it, as the first start leaves it.
async fn fresh() -> Disk {
    let disk = Disk::default();
    drop(open(&disk).await.unwrap());
    Disk::of(disk.content())
}

#[tokio::test]
async fn whatever_was_acknowledged_survives_a_crash_at_any_sync() {
    let (before, total) = syncs_of_a_whole_run().await;
    assert!(total - before >= COMMITS as usize, "each commit syncs");
    for crash_at in 1..=total - before {
        for seed in 0..4 {
            let disk = fresh().await;
            disk.crash_at(crash_at);
            let acknowledged = run(&disk).await;
            let random = SeededRandom::new(seed);
            // Seed 0 loses everything that was not synced, the others keep some of it.
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

/// Syncs of a whole run on a disk as the first start leaves it: those of the opening, and those
/// that end a growth of the file.
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
async fn a_sync_that_does_nothing_is_found_out() {
    let (before, total) = syncs_of_a_whole_run().await;
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
    // The opening syncs a mark that the store is in use; until the next sync, which makes it
    // durable as well, nothing is written over that a store without the mark refers to. A growth
    // is synced by itself, and again by both syncs of the commit that wanted the room.
    let (of_opening, growths) = syncs_by_kind().await;
    assert_eq!((of_opening, growths.len()), (1, 1), "the reasons have changed: {growths:?}");
    assert_eq!(harmless, [vec![1], growths].concat(), "of {}", total - before);
}

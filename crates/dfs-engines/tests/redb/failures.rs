//! Disks that fill up or fail, and recover.

use bytes::Bytes;
use dfs_engines::Execution;
use dfs_engines::redb::RedbEngine;
use dfs_metadata::engine::{Engine, EngineError, Watch, Write};
use dfs_types::Revision;

use super::backend::Disk;
use super::{open, options, put, value, write};

async fn on(disk: &Disk) -> RedbEngine {
    RedbEngine::with_backend(disk.backend(), options(Execution::Inline)).await.unwrap()
}

async fn watch(engine: &RedbEngine, from: Revision) -> Box<dyn Watch> {
    engine.watch(Bytes::new(), from).await.unwrap()
}

#[tokio::test]
async fn full_disk_refuses_writes_and_recovers() {
    let disk = Disk::default();
    let engine = on(&disk).await;
    write(&engine, vec![put("kept", "1")]).await.unwrap();
    disk.limit(Some(16 << 20));
    let mut stored = 0;
    let error = loop {
        let large = (0..15).map(|i| put(&format!("d/{stored}/{i}"), vec![7; 60_000])).collect();
        match write(&engine, large).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, EngineError::NoSpace(_)) && stored > 0, "{stored}: {error:?}");
    assert_eq!(value(&engine, "kept").await.unwrap().unwrap(), "1", "reads still work");
    assert_eq!(value(&engine, &format!("d/{stored}/0")).await.unwrap(), None);

    // Deletions work on a full disk, and the freed space can be used.
    for i in 0..stored {
        let all = (0..15).map(|j| Write::Delete(Bytes::from(format!("d/{i}/{j}")))).collect();
        write(&engine, all).await.unwrap();
    }
    let small = write(&engine, vec![put("small", "2")]).await.unwrap();

    disk.limit(None);
    let mut changes = watch(&engine, small).await;
    let large = (0..15).map(|i| put(&format!("e/{i}"), vec![7; 60_000])).collect();
    write(&engine, large).await.unwrap();
    assert!(changes.next().await.unwrap().revision > small, "a watch survives it");
    drop(engine);
    let engine = on(&disk).await;
    assert_eq!(value(&engine, "small").await.unwrap().unwrap(), "2");
    assert_eq!(value(&engine, "e/14").await.unwrap().unwrap(), vec![7; 60_000]);
}

#[tokio::test]
async fn failed_disk_is_used_again_after_recovery() {
    let disk = Disk::default();
    let engine = on(&disk).await;
    let first = write(&engine, vec![put("a", "1")]).await.unwrap();
    for round in 0..3 {
        disk.fail(true);
        let error = write(&engine, vec![put("a", "lost")]).await.unwrap_err();
        let unknown = matches!(error, EngineError::OutcomeUnknown(_));
        assert!(unknown || matches!(error, EngineError::Unavailable(_)), "{error:?}");
        write(&engine, vec![put("a", "lost")]).await.unwrap_err();
        disk.fail(false);
        assert_eq!(value(&engine, "a").await.unwrap().unwrap(), "1", "round {round}");
    }
    let second = write(&engine, vec![put("a", "2")]).await.unwrap();
    assert!(second > first);
    assert_eq!(value(&engine, "a").await.unwrap().unwrap(), "2");
}

#[tokio::test]
async fn failed_sync_is_never_reported_as_success() {
    let disk = Disk::default();
    let engine = on(&disk).await;
    write(&engine, vec![put("a", "1")]).await.unwrap();
    disk.fail_syncs(true);
    write(&engine, vec![put("a", "2")]).await.unwrap_err();
    disk.fail_syncs(false);
    let now = value(&engine, "a").await.unwrap().unwrap();
    write(&engine, vec![put("b", "1")]).await.unwrap();
    let after = on(&disk.after_crash(|_| false)).await;
    assert_eq!(value(&after, "a").await.unwrap().unwrap(), now, "only durable values were read");
}

#[tokio::test]
async fn commit_of_unknown_outcome_ends_the_watches() {
    let disk = Disk::default();
    let engine = on(&disk).await;
    let first = write(&engine, vec![put("a", "first")]).await.unwrap();
    let mut found = false;
    // At one of these failing points the commit is durable and the reply is lost.
    for after in 0..40 {
        let mut changes = watch(&engine, engine.snapshot().await.unwrap().revision()).await;
        disk.fail_after(after);
        let result = write(&engine, vec![put("a", after.to_string())]).await;
        disk.fail(false);
        let now = value(&engine, "a").await.unwrap().unwrap();
        match result {
            Ok(revision) => assert_eq!(changes.next().await.unwrap().revision, revision),
            Err(EngineError::OutcomeUnknown(_)) if now == after.to_string() => {
                found = true;
                let ended = changes.next().await;
                assert!(matches!(ended, Err(EngineError::Compacted(_))), "{ended:?}");
            }
            Err(EngineError::OutcomeUnknown(_)) => {}
            Err(error) => assert_ne!(now, after.to_string(), "it took effect: {error}"),
        }
    }
    assert!(found, "no failing point left the outcome open");
    assert!(matches!(engine.watch(Bytes::new(), first).await, Err(EngineError::Compacted(_))));
}

#[tokio::test]
async fn snapshot_keeps_the_folder_locked() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open(folder.path(), Execution::Blocking).await.unwrap();
    let second = open(folder.path(), Execution::Blocking).await;
    assert!(matches!(second, Err(EngineError::InUse(_))));
    drop(engine);
    open(folder.path(), Execution::Blocking).await.unwrap();
}

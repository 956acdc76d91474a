//! Damaged, foreign and newer stores are refused; nothing panics.

use std::fs;
use std::path::{Path, PathBuf};

use dfs_engines::Execution;
use dfs_engines::redb::RedbEngine;
use dfs_metadata::engine::{Engine, EngineError};
use dfs_types::{Random, SeededRandom};
use redb::{Database, TableDefinition};

use super::backend::Disk;
use super::{open, options, put, value, write};

/// Creates a store with a few hundred records and returns its file.
async fn filled(folder: &Path) -> PathBuf {
    let engine = open(folder, Execution::Inline).await.unwrap();
    for i in 0..5 {
        let writes = (0..80).map(|j| put(&format!("d/{i}/{j}"), vec![i as u8; 300])).collect();
        write(&engine, writes).await.unwrap();
    }
    folder.join("metadata.redb")
}

async fn refusal(folder: &Path) -> EngineError {
    match open(folder, Execution::Inline).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn truncated_and_garbage_files_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let file = filled(folder.path()).await;
    let whole = fs::read(&file).unwrap();
    let garbage: Vec<u8> = whole.iter().map(|byte| byte.wrapping_add(1)).collect();
    let mut no_header = whole.clone();
    no_header[..4096].fill(0);
    let contents = [
        vec![],
        whole[..10].to_vec(),
        whole[..4096].to_vec(),
        whole[..whole.len() / 2].to_vec(),
        vec![0; whole.len()],
        b"hello".to_vec(),
        garbage,
        no_header,
    ];
    for (index, content) in contents.into_iter().enumerate() {
        fs::write(&file, content).unwrap();
        let error = refusal(folder.path()).await;
        assert!(matches!(error, EngineError::Damaged(_)), "case {index}: {error:?}");
    }
    fs::write(&file, whole).unwrap();
    open(folder.path(), Execution::Inline).await.unwrap();
}

#[tokio::test]
async fn flipped_bits_give_an_error_or_the_right_value() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(filled(folder.path()).await).unwrap();
    let used: Vec<usize> = (0..whole.len()).filter(|i| whole[*i] != 0).collect();
    let random = SeededRandom::new(1);
    let mut detected = 0;
    for _ in 0..150 {
        let mut damaged = whole.clone();
        for _ in 0..=random.below(3) {
            let at = used[random.below(used.len() as u64) as usize];
            damaged[at] ^= 1 << random.below(8);
        }
        let disk = Disk::of(damaged);
        let backend = disk.backend();
        let Ok(engine) = RedbEngine::with_backend(backend, options(Execution::Inline)).await else {
            detected += 1;
            continue;
        };
        for i in 0..5 {
            for j in (0..80).step_by(7) {
                match value(&engine, &format!("d/{i}/{j}")).await {
                    Ok(Some(value)) => assert_eq!(value, vec![i as u8; 300]),
                    Ok(None) => {}
                    Err(_) => detected += 1,
                }
            }
        }
        if let Ok(snapshot) = engine.snapshot().await {
            detected += usize::from(snapshot.range(b"", b"", 1000).await.is_err());
        }
        // Whatever the result, the process must survive.
        let _ = write(&engine, vec![put("d/0/0", "new")]).await;
    }
    assert!(detected > 30, "only {detected} accesses detected damage");
}

async fn with_database(folder: &Path, change: impl FnOnce(&Database)) {
    drop(open(folder, Execution::Inline).await.unwrap());
    change(&Database::open(folder.join("metadata.redb")).unwrap());
}

#[tokio::test]
async fn newer_format_is_refused_as_such() {
    let folder = tempfile::tempdir().unwrap();
    with_database(folder.path(), |database| {
        let transaction = database.begin_write().unwrap();
        let state = TableDefinition::<&str, u64>::new("state");
        transaction.open_table(state).unwrap().insert("format", 7).unwrap();
        transaction.commit().unwrap();
    })
    .await;
    let error = refusal(folder.path()).await;
    assert!(matches!(error, EngineError::NewerFormat { found: 7, supported: 1 }), "{error:?}");
}

#[tokio::test]
async fn foreign_redb_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metadata.redb");
    let database = Database::create(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let before = fs::read(&file).unwrap();
    let error = refusal(folder.path()).await;
    assert!(matches!(error, EngineError::Damaged(_)), "{error:?}");
    assert!(error.to_string().contains("not a metadata store of dfs"), "{error}");
    let _ = before;
}

#[tokio::test]
async fn interrupted_creation_is_restarted() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("metadata.redb.new"), b"half a store").unwrap();
    let engine = open(folder.path(), Execution::Inline).await.unwrap();
    write(&engine, vec![put("a", "1")]).await.unwrap();
    assert!(!folder.path().join("metadata.redb.new").exists());
}

#[tokio::test]
async fn file_in_place_of_the_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = refusal(&file).await;
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

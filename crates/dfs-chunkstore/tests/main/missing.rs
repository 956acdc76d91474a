//! Files that someone removed while the store is open, and disks that are not mounted any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::{
    ChunkStore as _, DiskStore, FullSpeed, IdentityStore as _, OsFs, Pool, ScrubProgress,
    ScrubStore as _, StoreError, conformance,
};
use dfs_types::{ChunkId, DiskState, OsRandom};
use tempfile::TempDir;

use crate::support::{config, states};

/// A chunk in a segment, and one in a file of its own.
const LENGTHS: [usize; 2] = [4 << 10, 3 << 20];

fn folder() -> TempDir {
    tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

async fn open(folder: &Path) -> DiskStore {
    let config = config(&[folder.to_str().unwrap()]);
    DiskStore::open(config, Arc::new(OsFs::new()), Pool::threads(1), Arc::new(OsRandom))
        .await
        .unwrap()
}

/// Closes a store, so that its directory is unlocked.
async fn close(store: DiskStore) {
    store.close(Duration::from_secs(10)).await;
}

/// Removes all files with chunks.
fn remove_data(folder: &Path) {
    for shard in fs::read_dir(folder.join("chunks")).unwrap() {
        fs::remove_dir_all(shard.unwrap().path()).unwrap();
    }
    for segment in fs::read_dir(folder.join("segments")).unwrap() {
        fs::remove_file(segment.unwrap().path()).unwrap();
    }
}

#[tokio::test]
async fn removed_file_is_found_although_it_is_open() {
    for length in LENGTHS {
        let folder = folder();
        let disk = folder.path().join("disk");
        let store = open(&disk).await;
        let used = store.usage()[0].free;
        let first = conformance::put(&store, ChunkId(1), length).await.unwrap().replica();
        let second = conformance::put(&store, ChunkId(2), length).await.unwrap().replica();
        store.read(first, 0, 1).await.unwrap();
        assert_eq!(store.verify(first, &FullSpeed).await.unwrap(), None);
        remove_data(&disk);

        let found = store.verify(first, &FullSpeed).await;
        assert!(matches!(found, Err(StoreError::NotFound(ChunkId(1)))), "{found:?}");
        assert_eq!(store.stat(first).await.unwrap(), None, "it is forgotten");
        let found = store.read(second, 0, 1).await;
        assert!(
            matches!(found, Err(StoreError::NotFound(ChunkId(2)))) || length == LENGTHS[1],
            "{found:?}"
        );
        store.delete(second).await.unwrap();
        assert_eq!(store.list(None, 9).await.unwrap(), []);
        assert_eq!(states(&store), [DiskState::Healthy]);
        assert!(store.usage()[0].free.abs_diff(used) < 1 << 20, "its space is not counted");

        // Nothing is written to a file that has no name.
        let third = conformance::put(&store, ChunkId(3), length).await.unwrap();
        close(store).await;
        let store = open(&disk).await;
        assert_eq!(store.list(None, 9).await.unwrap(), [third]);
    }
}

#[tokio::test]
async fn replica_on_a_disk_that_is_not_mounted_any_more_is_not_gone() {
    for length in LENGTHS {
        let folder = folder();
        let disk = folder.path().join("disk");
        let store = open(&disk).await;
        let replica = conformance::put(&store, ChunkId(1), length).await.unwrap().replica();
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&disk, &elsewhere).unwrap();
        fs::create_dir(&disk).unwrap();

        assert!(store.verify(replica, &FullSpeed).await.is_err());
        assert_eq!(states(&store), [DiskState::Missing], "it proves nothing, and may come back");
        let id = store.usage()[0].disk;
        assert!(store.store_scrub_progress(id, ScrubProgress::default()).await.is_err());
        // Its index is out of date: it is used by the next start, which need not wait for its lock.
        fs::remove_dir_all(&disk).unwrap();
        fs::rename(&elsewhere, &disk).unwrap();
        assert!(!store.reopen_disks().await);
        assert_eq!(states(&store), [DiskState::Missing]);
        let next = open(&disk).await;
        assert_eq!(states(&next), [DiskState::Healthy]);
        conformance::assert_whole(&next, ChunkId(1), length).await;
        close(store).await;
    }
}

/// No chunk is acknowledged that only an open file without a name has.
#[tokio::test]
async fn chunk_sealed_after_its_segment_was_removed_is_in_another_one() {
    let folder = folder();
    let disk = folder.path().join("disk");
    let store = open(&disk).await;
    conformance::put(&store, ChunkId(1), LENGTHS[0]).await.unwrap();
    remove_data(&disk);
    let second = conformance::put(&store, ChunkId(2), LENGTHS[0]).await.unwrap();
    close(store).await;
    let store = open(&disk).await;
    assert_eq!(store.list(None, 9).await.unwrap(), [second]);
    conformance::assert_whole(&store, ChunkId(2), LENGTHS[0]).await;
}

#[tokio::test]
async fn scrub_progress_survives_a_restart() {
    let folder = folder();
    let store = open(folder.path()).await;
    let disk = store.usage()[0].disk;
    assert_eq!(store.scrub_progress(disk).await.unwrap(), ScrubProgress::default());
    let progress = ScrubProgress { after: Some(ChunkId(7)), bytes: 9, ..Default::default() };
    store.store_scrub_progress(disk, progress).await.unwrap();
    close(store).await;
    let store = open(folder.path()).await;
    assert_eq!(store.scrub_progress(disk).await.unwrap(), progress);
}

//! Index files of segments: a start reads them instead of the heads, and nothing else changes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dfs_chunkstore::sim::{Operation, SimFs, Synced};
use dfs_chunkstore::{
    ChunkStore as _, DiskStore, Fs, FsCall, FsHook, FullSpeed, HookedFs, IdentityStore as _,
    Opening, Pool, SealedChunk, StoreError, conformance,
};
use dfs_types::{ChunkId, DiskState, SeededRandom};
use tokio::time::advance;

use crate::support::{config, open_sim, remove_indexes, segment_files, states};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Three of them fill a segment.
const LENGTH: usize = 20 << 10;
const CHUNKS: u128 = 8;

/// Records which segments were read.
#[derive(Default)]
struct SegmentReads(Mutex<BTreeSet<PathBuf>>);

impl FsHook for SegmentReads {
    type Running<'a> = ();

    fn begin(&self, path: &Path, call: FsCall) -> io::Result<()> {
        let is_segment = path.extension().is_some_and(|extension| extension == "v1");
        if is_segment && matches!(call, FsCall::Read { .. }) {
            self.0.lock().unwrap().insert(path.to_owned());
        }
        Ok(())
    }
}

/// Opens the store. Also returns the number of segments whose heads were read.
async fn open_counted(fs: &SimFs, seed: u64) -> (DiskStore, usize) {
    let reads = Arc::<SegmentReads>::default();
    let hooked: Arc<dyn Fs> = Arc::new(HookedFs::new(Arc::new(fs.clone()), Arc::clone(&reads)));
    let random = Arc::new(SeededRandom::new(seed));
    let store = DiskStore::open(config(&["/a"]), hooked, Pool::inline(), random).await.unwrap();
    assert_eq!(states(&store), [DiskState::Healthy]);
    let count = reads.0.lock().unwrap().len();
    (store, count)
}

/// Returns the file system of a store that was closed with three segments, and its replicas.
async fn closed() -> (SimFs, Vec<SealedChunk>) {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
    let mut sealed = Vec::new();
    for number in 0..CHUNKS {
        sealed.push(conformance::put(&store, ChunkId(number), LENGTH).await.unwrap());
    }
    store.close(Duration::from_secs(1)).await;
    assert_eq!(segment_files(&fs, "idx").len(), 3);
    sync_indexes(&fs);
    (fs, sealed)
}

/// Makes the index files durable, as the system does after a while.
fn sync_indexes(fs: &SimFs) {
    for index in segment_files(fs, "idx") {
        fs.open(&index, Opening::Existing).unwrap().sync().unwrap();
    }
    fs.sync_dir(Path::new("/a/segments")).unwrap();
}

fn read(fs: &SimFs, path: &Path) -> Bytes {
    let file = fs.open(path, Opening::Existing).unwrap();
    file.read_at(0, file.length().unwrap() as usize).unwrap()
}

fn replace(fs: &SimFs, path: &Path, bytes: Bytes) {
    let file = fs.open(path, Opening::Create).unwrap();
    file.write_at(0, &[bytes]).unwrap();
    file.sync().unwrap();
    fs.sync_dir(path.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn start_reads_indexes_instead_of_heads() {
    let (fs, sealed) = closed().await;
    let (store, read) = open_counted(&fs, 2).await;
    assert_eq!(read, 0, "closed regularly");
    assert_eq!(store.list(None, 99).await.unwrap(), sealed);
    for chunk in &sealed {
        conformance::assert_whole(&store, chunk.chunk, LENGTH).await;
    }
    // After a crash, only the last segment has no index: those before it became full.
    for number in 0..CHUNKS {
        conformance::put(&store, ChunkId(100 + number), LENGTH).await.unwrap();
    }
    let listed = store.list(None, 99).await.unwrap();
    assert_eq!((segment_files(&fs, "v1").len(), segment_files(&fs, "idx").len()), (6, 5));
    sync_indexes(&fs);
    drop(store);
    fs.crash();
    let (store, read) = open_counted(&fs, 3).await;
    assert_eq!(read, 1);
    assert_eq!(store.list(None, 99).await.unwrap(), listed);
    assert_eq!(
        segment_files(&fs, "idx").len(),
        segment_files(&fs, "v1").len(),
        "the start has written it"
    );
}

#[tokio::test]
async fn invalid_index_is_ignored_and_written_again() {
    /// Damages the index or its segment.
    type Damage<'a> = &'a dyn Fn(&SimFs, &Path, &Path);
    let damage: [Damage; 7] = [
        &|fs, index, _| fs.remove(index).unwrap(),
        &|fs, index, _| fs.flip_bit(index, 50, 3).unwrap(),
        &|fs, index, _| replace(fs, index, Bytes::new()),
        &|fs, index, _| replace(fs, index, read(fs, index).slice(..70)),
        &|fs, index, _| replace(fs, index, vec![0; 1 << 20].into()),
        // Of another segment.
        &|fs, index, _| replace(fs, index, read(fs, &segment_files(fs, "idx")[1])),
        // Of an older state of the segment.
        &|fs, _, segment| {
            let file = fs.open(segment, Opening::Existing).unwrap();
            file.set_len(file.length().unwrap() + 4096).unwrap();
            file.sync().unwrap();
        },
    ];
    for (number, damage) in damage.into_iter().enumerate() {
        let (fs, sealed) = closed().await;
        damage(&fs, &segment_files(&fs, "idx")[0], &segment_files(&fs, "v1")[0]);
        let (store, read) = open_counted(&fs, 2).await;
        assert_eq!(read, 1, "damage {number}");
        assert_eq!(store.list(None, 99).await.unwrap(), sealed, "damage {number}");
        drop(store);
        fs.crash_torn(&SeededRandom::new(number as u64));
        let (store, _) = open_counted(&fs, 3).await;
        assert_eq!(store.list(None, 99).await.unwrap(), sealed, "damage {number}");
        store.close(Duration::from_secs(1)).await;
        let (_, read) = open_counted(&fs, 4).await;
        assert_eq!(read, 0, "damage {number}");
    }
}

/// An index that could not be read once must not bring back what was deleted since.
#[tokio::test]
async fn unreadable_index_does_not_outlive_a_change() {
    for can_write in [true, false] {
        let (fs, sealed) = closed().await;
        let index = segment_files(&fs, "idx")[0].clone();
        fs.fail(&index, Operation::Read, EIO);
        if !can_write {
            fs.fail(&index, Operation::Write, ENOSPC);
        }
        let (store, read) = open_counted(&fs, 2).await;
        assert_eq!(read, 1);
        fs.heal();
        assert!(store.delete(sealed[0].replica()).await.unwrap());
        drop(store);
        fs.crash();
        let (store, _) = open_counted(&fs, 3).await;
        assert_eq!(store.list(None, 99).await.unwrap(), sealed[1..]);
    }
}

#[tokio::test]
async fn changed_heads_are_found_after_a_crash() {
    let (fs, sealed) = closed().await;
    let (store, _) = open_counted(&fs, 2).await;
    assert!(store.delete(sealed[0].replica()).await.unwrap());
    store.set_aside(sealed[3].replica()).await.unwrap();
    let restamped = store.restamp(sealed[6].replica()).await.unwrap();
    drop(store);
    fs.crash();
    let (store, read) = open_counted(&fs, 3).await;
    assert_eq!(read, 3, "each segment was changed");
    let mut expected = sealed[1..].to_vec();
    expected[2].is_set_aside = true;
    expected[5] = restamped;
    assert_eq!(store.list(None, 99).await.unwrap(), expected);

    // The same from the indexes that this start has written.
    store.reinstate(sealed[3].replica()).await.unwrap();
    store.close(Duration::from_secs(1)).await;
    let (store, read) = open_counted(&fs, 4).await;
    expected[2].is_set_aside = false;
    assert_eq!((read, store.list(None, 99).await.unwrap()), (0, expected));
}

#[tokio::test(start_paused = true)]
async fn outdated_index_is_written_again_after_some_minutes() {
    let (fs, sealed) = closed().await;
    let (store, _) = open_counted(&fs, 2).await;
    assert!(!store.reopen_disks().await);
    assert!(store.delete(sealed[0].replica()).await.unwrap());
    assert_eq!(segment_files(&fs, "idx").len(), 2);
    advance(Duration::from_mins(4)).await;
    assert!(!store.reopen_disks().await);
    assert_eq!(segment_files(&fs, "idx").len(), 2, "too soon");
    advance(Duration::from_mins(1)).await;
    assert!(!store.reopen_disks().await);
    assert_eq!(segment_files(&fs, "idx").len(), 3);
    sync_indexes(&fs);
    drop(store);
    fs.crash();
    let (store, read) = open_counted(&fs, 3).await;
    assert_eq!((read, store.list(None, 99).await.unwrap()), (0, sealed[1..].to_vec()));
}

/// Without an index, every start finds the damage again, and the segment is kept.
#[tokio::test]
async fn segment_with_a_damaged_head_gets_no_index() {
    let (fs, sealed) = closed().await;
    let segment = segment_files(&fs, "v1")[0].clone();
    fs.flip_bit(&segment, 20, 0).unwrap();
    remove_indexes(&fs);
    for seed in 2..4 {
        let (store, _) = open_counted(&fs, seed).await;
        assert_eq!(store.damaged().len(), 1);
        assert_eq!(store.list(None, 99).await.unwrap(), sealed[1..]);
        assert_eq!(segment_files(&fs, "idx").len(), 2);
        store.close(Duration::from_secs(1)).await;
        assert_eq!(segment_files(&fs, "idx").len(), 2);
    }
}

/// An index that could not be read once must not hide the damage that the heads have shown.
#[tokio::test]
async fn unreadable_index_of_a_damaged_segment_is_removed() {
    let (fs, sealed) = closed().await;
    fs.flip_bit(&segment_files(&fs, "v1")[0], 20, 0).unwrap();
    fs.fail(&segment_files(&fs, "idx")[0], Operation::Read, EIO);
    for seed in 2..4 {
        let (store, read) = open_counted(&fs, seed).await;
        assert_eq!((read, store.damaged().len()), (1, 1));
        assert_eq!(store.list(None, 99).await.unwrap(), sealed[1..]);
        drop(store);
        fs.heal();
        fs.crash();
    }
}

/// A change that fails may have changed the head nevertheless.
#[tokio::test]
async fn segment_gets_no_index_after_a_failed_change_of_a_head() {
    for is_restamped in [false, true] {
        let (fs, sealed) = closed().await;
        let (store, _) = open_counted(&fs, 2).await;
        fs.fill_next_sync(Synced::File);
        let replica = sealed[0].replica();
        let failed = if is_restamped {
            store.restamp(replica).await.map(drop)
        } else {
            store.set_aside(replica).await
        };
        assert!(matches!(failed, Err(StoreError::NoSpace(_))), "{failed:?}");
        store.close(Duration::from_secs(1)).await;
        assert_eq!(segment_files(&fs, "idx").len(), 2);
        let (store, read) = open_counted(&fs, 3).await;
        assert_eq!(read, 1);
        let found = store.list(None, 99).await.unwrap();
        assert_ne!(found[0], sealed[0], "the head was changed");
        assert_eq!(found[1..], sealed[1..]);
    }
}

/// The start does not read the head; every read and verification of the replica does.
#[tokio::test]
async fn head_damaged_after_its_index_was_written_is_found_by_a_read() {
    let (fs, sealed) = closed().await;
    fs.flip_bit(&segment_files(&fs, "v1")[0], 20, 0).unwrap();
    let (store, read) = open_counted(&fs, 2).await;
    assert_eq!((read, store.list(None, 99).await.unwrap()), (0, sealed.clone()));
    sync_indexes(&fs);
    let bad = sealed[0].replica();
    let found = store.read(bad, 0, 1).await;
    assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}");
    assert_eq!(store.verify(bad, &FullSpeed).await.unwrap(), Some(0));
    store.set_aside(bad).await.unwrap();
    drop(store);
    fs.crash();
    let (store, read) = open_counted(&fs, 3).await;
    assert_eq!(read, 1);
    assert!(store.stat(bad).await.unwrap().unwrap().is_set_aside);
    assert!(store.delete(bad).await.unwrap());
    assert_eq!(store.list(None, 99).await.unwrap(), sealed[1..]);
}

#[tokio::test]
async fn index_of_a_segment_that_is_gone_is_removed() {
    let (fs, sealed) = closed().await;
    fs.remove(&segment_files(&fs, "v1")[0]).unwrap();
    let (store, read) = open_counted(&fs, 2).await;
    assert_eq!((read, segment_files(&fs, "idx").len()), (0, 2));
    assert_eq!(store.list(None, 99).await.unwrap(), sealed[3..]);
    // Deleting the last replica removes both files.
    for replica in &sealed[3..] {
        assert!(store.delete(replica.replica()).await.unwrap());
    }
    assert_eq!((segment_files(&fs, "v1").len(), segment_files(&fs, "idx").len()), (0, 0));
}

#[tokio::test]
async fn index_of_a_segment_that_is_gone_may_stay() {
    let (fs, sealed) = closed().await;
    fs.fail(&segment_files(&fs, "idx")[0], Operation::Write, ENOSPC);
    fs.remove(&segment_files(&fs, "v1")[0]).unwrap();
    let (store, read) = open_counted(&fs, 2).await;
    assert_eq!((read, store.list(None, 99).await.unwrap()), (0, sealed[3..].to_vec()));
}

#[tokio::test]
async fn store_opens_on_a_disk_too_full_for_an_index() {
    let (fs, sealed) = closed().await;
    remove_indexes(&fs);
    for index in [0, 1, 2] {
        let name = segment_files(&fs, "v1")[index].with_extension("idx");
        fs.fail(&name, Operation::Write, ENOSPC);
    }
    let (store, _) = open_counted(&fs, 2).await;
    assert_eq!(store.list(None, 99).await.unwrap(), sealed);
    fs.heal();
    for replica in &sealed {
        assert!(store.delete(replica.replica()).await.unwrap());
    }
}

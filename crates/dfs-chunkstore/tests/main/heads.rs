//! Damaged heads: one costs its replica, and destroys nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dfs_chunkstore::sim::{Operation, SimFs};
use dfs_chunkstore::{
    ChunkStore as _, DiskStore, Fs, FsCall, FsHook, FullSpeed, HookedFs, IdentityStore as _,
    Opening, Pool, conformance,
};
use dfs_types::{ChunkId, DiskState, SeededRandom};
use tokio::time::advance;

use crate::support::{config, open_sim, remove_indexes, states};

const EIO: i32 = 5;
const SMALL: usize = 4 << 10;
const LARGE: usize = 3 << 20;
const VICTIM: ChunkId = ChunkId(0x17);

async fn reopen(fs: &SimFs, store: DiskStore, seed: u64) -> DiskStore {
    drop(store);
    fs.crash();
    open_sim(fs, config(&["/a"]), seed).await.unwrap()
}

/// Returns the file with these bytes, and their offset.
fn find(fs: &SimFs, bytes: &[u8]) -> (PathBuf, u64) {
    for name in fs.list(Path::new("/a/segments")).unwrap() {
        let path = Path::new("/a/segments").join(name);
        let file = fs.open(&path, Opening::Existing).unwrap();
        let content = file.read_at(0, file.length().unwrap() as usize).unwrap();
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            return (path, at as u64);
        }
    }
    panic!("no segment contains the chunk");
}

fn read(fs: &SimFs, path: &Path, at: u64, length: usize) -> Bytes {
    fs.open(path, Opening::Existing).unwrap().read_at(at, length).unwrap()
}

fn write(fs: &SimFs, path: &Path, at: u64, bytes: Bytes) {
    let file = fs.open(path, Opening::Existing).unwrap();
    file.write_at(at, &[bytes]).unwrap();
    file.sync().unwrap();
}

/// D3: a rotten head of the only record of a segment used to destroy an intact body.
#[tokio::test]
async fn d03_segment_with_a_damaged_head_is_kept_and_reported() {
    // Alone, before and after another record of its segment; in the last segment, or an earlier one.
    for (others, is_last, is_zeroed) in [
        (&[][..], true, false),
        (&[], true, true),
        (&[], false, false),
        (&[], false, true),
        (&[1], true, false),
        (&[1], false, true),
        (&[0x20], true, true),
        (&[0x20], false, false),
    ] {
        let fs = SimFs::new();
        let mut store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        let mut chunks: Vec<_> = others.iter().map(|other| ChunkId(*other)).collect();
        chunks.push(VICTIM);
        chunks.sort();
        for chunk in &chunks {
            conformance::put(&store, *chunk, SMALL).await.unwrap();
        }
        if !is_last {
            store = reopen(&fs, store, 2).await;
            conformance::put(&store, ChunkId(0x99), SMALL).await.unwrap();
        }
        let (path, at) = find(&fs, &conformance::content(VICTIM, SMALL)[..64]);
        let head = at - at % 4096;
        let before = read(&fs, &path, head, 256);
        let mut damaged = if is_zeroed { vec![0; 256] } else { before.to_vec() };
        damaged[20] ^= 1;
        write(&fs, &path, head, damaged.into());

        remove_indexes(&fs);
        let store = reopen(&fs, store, 3).await;
        assert_eq!(states(&store), [DiskState::Healthy]);
        assert_eq!(conformance::newest(&store, VICTIM).await, None);
        let found = store.damaged();
        assert_eq!((found.len(), &found[0].path, found[0].offset), (1, &path, Some(head)));
        // Not even the deletion of everything else removes it.
        for sealed in store.list(None, 99).await.unwrap() {
            conformance::assert_whole(&store, sealed.chunk, SMALL).await;
            assert!(store.delete(sealed.replica()).await.unwrap());
        }
        conformance::put(&store, ChunkId(0x55), SMALL).await.unwrap();
        let store = reopen(&fs, store, 4).await;
        assert_eq!(store.damaged().len(), 1);

        write(&fs, &path, head, before);
        let store = reopen(&fs, store, 5).await;
        assert_eq!(store.damaged(), []);
        conformance::assert_whole(&store, VICTIM, SMALL).await;
    }
}

/// D3: the same for a chunk in a file of its own, whose name says which one it is.
#[tokio::test]
async fn d03_damaged_or_unreadable_head_of_a_file_costs_its_replica_alone() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
    for chunk in [VICTIM, ChunkId(1)] {
        conformance::put(&store, chunk, LARGE).await.unwrap();
    }
    let disk = store.usage()[0].disk;
    let path = PathBuf::from(format!("/a/chunks/17/{VICTIM}.v1"));
    let head = fs.open(&path, Opening::Existing).unwrap().length().unwrap() - 4096;
    let damage: [&dyn Fn(); 2] =
        [&|| fs.flip_bit(&path, head + 30, 1).unwrap(), &|| fs.fail(&path, Operation::Read, EIO)];
    let repair: [&dyn Fn(); 2] = [&|| fs.flip_bit(&path, head + 30, 1).unwrap(), &|| fs.heal()];
    let mut store = store;
    for (damage, repair) in damage.into_iter().zip(repair) {
        damage();
        store = reopen(&fs, store, 2).await;
        assert_eq!(states(&store), [DiskState::Healthy]);
        let found = store.damaged();
        assert_eq!((found.len(), found[0].chunk, found[0].disk), (1, Some(VICTIM), disk));
        assert_eq!(conformance::newest(&store, VICTIM).await, None);
        conformance::assert_whole(&store, ChunkId(1), LARGE).await;
        repair();
        store = reopen(&fs, store, 3).await;
        conformance::assert_whole(&store, VICTIM, LARGE).await;
    }
}

/// A flipped bit in the data of the last commit is damage, not an incomplete commit.
#[tokio::test]
async fn damaged_record_of_the_last_commit_is_set_aside_not_removed() {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
    let sealed = conformance::put(&store, VICTIM, SMALL).await.unwrap();
    let (path, at) = find(&fs, &conformance::content(VICTIM, SMALL)[..64]);
    fs.flip_bit(&path, at + 100, 1).unwrap();
    let store = reopen(&fs, store, 2).await;
    let found = store.stat(sealed.replica()).await.unwrap().unwrap();
    assert!(found.is_set_aside);
    assert_eq!(store.verify(sealed.replica(), &FullSpeed).await.unwrap(), Some(0));
    fs.flip_bit(&path, at + 100, 1).unwrap();
    assert_eq!(store.verify(sealed.replica(), &FullSpeed).await.unwrap(), None);
}

/// Fails the reads of one page of a file.
#[derive(Default)]
struct BadPage(Mutex<Option<(PathBuf, u64)>>);

impl FsHook for BadPage {
    type Running<'a> = ();

    fn begin(&self, path: &Path, call: FsCall) -> io::Result<()> {
        let (Some((bad, page)), FsCall::Read { offset, length }) = (&*self.0.lock().unwrap(), call)
        else {
            return Ok(());
        };
        let is_hit = path == bad && offset < page + 4096 && *page < offset + length;
        if is_hit { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }
}

/// A head may be readable again: its replica is not absent before the disk got another chance.
#[tokio::test(start_paused = true)]
async fn unreadable_head_is_no_proof_of_absence_until_it_is_read_again() {
    for (length, is_transient) in [(SMALL, true), (SMALL, false), (LARGE, true), (LARGE, false)] {
        let (fs, bad_page) = (SimFs::new(), Arc::<BadPage>::default());
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        conformance::put(&store, VICTIM, length).await.unwrap();
        let page = if length == LARGE {
            let path = PathBuf::from(format!("/a/chunks/17/{VICTIM}.v1"));
            let length = fs.open(&path, Opening::Existing).unwrap().length().unwrap();
            (path, length - 4096)
        } else {
            let (path, at) = find(&fs, &conformance::content(VICTIM, SMALL)[..64]);
            (path, at - at % 4096)
        };
        drop(store);
        fs.crash();
        *bad_page.0.lock().unwrap() = Some(page);
        let hooked: Arc<dyn Fs> =
            Arc::new(HookedFs::new(Arc::new(fs.clone()), Arc::clone(&bad_page)));
        let (random, pool) = (Arc::new(SeededRandom::new(2)), Pool::inline());
        let store = DiskStore::open(config(&["/a"]), hooked, pool, random).await.unwrap();
        let is_unknown = || (store.usage()[0].has_unread_heads, store.damaged().len());
        assert_eq!(is_unknown(), (true, 1));
        assert!(store.usage()[0].reason.contains("restart the node"));
        assert!(!store.reopen_disks().await, "too soon");
        if is_transient {
            bad_page.0.lock().unwrap().take();
        }
        advance(Duration::from_mins(4)).await;
        assert!(!store.reopen_disks().await, "too soon");
        assert_eq!(is_unknown(), (true, 1));
        advance(Duration::from_mins(1)).await;
        let is_settled = store.reopen_disks().await;
        let expected = match (is_transient, length) {
            (true, LARGE) => (false, 0),
            // A record is found only by a scan of its segment.
            (true, _) => (true, 1),
            (false, _) => (false, 1),
        };
        assert_eq!((is_unknown(), is_settled), (expected, !expected.0));
        if expected.1 == 0 {
            conformance::assert_whole(&store, VICTIM, length).await;
        }
    }
}

/// A disk that reads almost nothing would otherwise call almost everything absent.
#[tokio::test]
async fn many_unreadable_heads_of_files_fail_the_disk() {
    for (unreadable, state) in [(16, DiskState::Healthy), (17, DiskState::Failed)] {
        let fs = SimFs::new();
        let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
        let mut paths = Vec::new();
        for number in 0..17 {
            let chunk = ChunkId(number);
            conformance::put(&store, chunk, LARGE).await.unwrap();
            paths.push(PathBuf::from(format!("/a/chunks/{number:02x}/{chunk}.v1")));
        }
        drop(store);
        fs.crash();
        for path in &paths[..unreadable] {
            fs.fail(path, Operation::Read, EIO);
        }
        let store = open_sim(&fs, config(&["/a"]), 2).await.unwrap();
        assert_eq!(states(&store), [state], "{unreadable} are unreadable");
    }
}

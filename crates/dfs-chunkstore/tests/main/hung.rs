//! A disk whose operations do not return.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{
    ChunkStore as _, DiskStore, Fs, FsCall, FsHook, FullSpeed, HookedFs, IdentityStore as _, Pool,
    ScrubStore as _, StoreError, conformance,
};
use dfs_types::{ChunkId, DiskState, ErrorCode, SeededRandom};

use crate::support::{config, numbered, segment_files, states};

const LARGE: usize = 3 << 20;

/// Holds all operations below a directory while it is closed.
#[derive(Default)]
struct Gate {
    closed: Mutex<Option<&'static str>>,
    opened: Condvar,
}

impl Gate {
    fn set_closed(&self, is_closed: bool) {
        self.close(is_closed.then_some("/b"));
    }

    /// Closes it below this directory, or opens it.
    fn close(&self, below: Option<&'static str>) {
        *self.closed.lock().unwrap() = below;
        self.opened.notify_all();
    }
}

impl FsHook for Gate {
    type Running<'a> = ();

    fn begin(&self, path: &Path, _call: FsCall) -> io::Result<()> {
        let closed = self.closed.lock().unwrap();
        let holds = |below: &mut Option<&str>| below.is_some_and(|below| path.starts_with(below));
        drop(self.opened.wait_while(closed, holds).unwrap());
        Ok(())
    }
}

/// A file system whose operations hang while its gate is closed.
struct HangingFs {
    inner: SimFs,
    gate: Arc<Gate>,
}

impl HangingFs {
    fn new() -> Self {
        Self { inner: SimFs::new(), gate: Arc::default() }
    }

    fn hooked(&self) -> Arc<dyn Fs> {
        Arc::new(HookedFs::new(Arc::new(self.inner.clone()), Arc::clone(&self.gate)))
    }
}

/// Returns the result of a call on the hanging disk, after as much time as it takes. The clock
/// runs only while the call waits.
async fn eventually<T>(call: impl Future<Output = T>) -> T {
    tokio::time::pause();
    let result = call.await;
    tokio::time::resume();
    result
}

/// Waits until the disk `/b` answers again.
async fn until_it_answers(store: &DiskStore) {
    while states(store)[1] == DiskState::Hung {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn hung_disk_leaves_the_others_working_and_recovers() {
    use DiskState::{Healthy, Hung, Returning, Slow};
    let fs = HangingFs::new();
    let random = Arc::new(SeededRandom::new(1));
    let pool = Pool::threads(2);
    let store = DiskStore::open(config(&["/a", "/b"]), fs.hooked(), pool, random);
    let store = store.await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    let id = store.usage()[1].disk;
    let (mut on_a, mut on_b) = (None, None);
    for number in 1..=4 {
        let sealed = conformance::put(&store, ChunkId(number), LARGE).await.unwrap();
        *(if sealed.disk == id { &mut on_b } else { &mut on_a }) = Some(sealed);
    }
    let (on_a, on_b) = (on_a.unwrap(), on_b.unwrap());

    fs.gate.set_closed(true);
    let read = eventually(store.read(on_b.replica(), 0, 1)).await;
    assert_eq!(read.unwrap_err().code(), ErrorCode::Unavailable);
    assert_eq!(states(&store), [Healthy, Hung]);
    assert!(store.usage()[1].reason.starts_with("/b: "));
    // Its calls fail at once, all others work.
    for refused in [
        store.header(on_b.replica()).await.map(drop),
        store.verify(on_b.replica(), &FullSpeed).await.map(drop),
        store.set_aside(on_b.replica()).await,
        store.delete(on_b.replica()).await.map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::Hung { .. })), "{refused:?}");
    }
    assert_eq!(store.stat(on_b.replica()).await.unwrap(), Some(on_b), "the index is complete");
    conformance::assert_whole(&store, on_a.chunk, LARGE).await;
    for number in 100..110 {
        let sealed = conformance::put(&store, ChunkId(number), LARGE).await.unwrap();
        assert_eq!(sealed.disk, on_a.disk, "a hung disk is not chosen");
    }
    // The node can register; the disk misses it.
    store.store_registration(numbered(2)).await.unwrap();

    fs.gate.set_closed(false);
    until_it_answers(&store).await;
    assert_eq!(states(&store), [Healthy, Returning]);
    conformance::assert_whole(&store, on_b.chunk, LARGE).await;
    store.settle_disk(id).await.unwrap();
    assert_eq!(states(&store), [Healthy, Slow], "it was slow a moment ago");
    assert!(store.delete(on_b.replica()).await.unwrap());
}

#[tokio::test]
async fn chunk_being_written_to_a_disk_that_hangs_fails() {
    for length in [LARGE, 100] {
        let fs = HangingFs::new();
        let random = Arc::new(SeededRandom::new(1));
        let (pool, shared) = (Pool::threads(2), fs.hooked());
        let store = DiskStore::open(config(&["/a", "/b"]), shared, pool, random).await.unwrap();
        let first = conformance::put(&store, ChunkId(1), LARGE).await.unwrap();
        assert_eq!(first.disk, store.usage()[0].disk, "the next one goes to the emptier disk");
        fs.gate.set_closed(true);
        let failed = eventually(conformance::put(&store, ChunkId(2), length)).await;
        assert!(matches!(failed, Err(StoreError::Hung { .. })), "{failed:?}");
        let other = conformance::put(&store, ChunkId(3), length).await.unwrap();
        assert_eq!(other.disk, first.disk);
        fs.gate.set_closed(false);
        until_it_answers(&store).await;
        // The chunk may have been sealed; if not, it can be written again.
        while conformance::newest(&store, ChunkId(2)).await.is_none() {
            match conformance::put(&store, ChunkId(2), length).await {
                Ok(_) => {}
                Err(StoreError::Exists(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
        conformance::assert_whole(&store, ChunkId(2), length).await;
    }
}

/// A disk that takes long to read takes part in registrations, but proves nothing until it is read.
#[tokio::test]
async fn disk_that_is_still_being_read_is_starting() {
    use DiskState::{Healthy, Starting};
    let fs = HangingFs::new();
    let open = async |read_within| {
        let config = dfs_chunkstore::Config {
            slow_after: Duration::from_hours(1),
            hung_after: Duration::from_hours(1),
            read_within,
            ..config(&["/a", "/b"])
        };
        let random = Arc::new(SeededRandom::new(1));
        DiskStore::open(config, fs.hooked(), Pool::threads(2), random).await.unwrap()
    };
    let store = open(Duration::from_hours(1)).await;
    store.store_registration(numbered(1)).await.unwrap();
    let disk = store.usage()[1].disk;
    let mut on_b = Vec::new();
    for number in 1..=4 {
        on_b.push(conformance::put(&store, ChunkId(number), LARGE).await.unwrap());
    }
    on_b.retain(|sealed| sealed.disk == disk);
    let replica = on_b[0].replica();
    drop(store);
    fs.inner.crash();
    // The first of the two directories of its chunks can be read.
    let last = format!("/b/chunks/{:02x}", on_b[1].chunk.0);
    fs.gate.close(Some(String::leak(last)));
    let store = open(Duration::from_millis(100)).await;
    let half_read = async {
        while store.usage()[1].read_percent != Some(50) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), half_read).await.unwrap();
    assert_eq!(states(&store), [Healthy, Starting]);
    assert!(!store.usage()[1].state.proves_absence() && !store.usage()[1].state.takes_chunks());
    assert_eq!(store.stat(replica).await.unwrap(), None);
    assert!(store.scrub_progress(disk).await.is_err(), "nothing on it is used");
    let new = conformance::put(&store, ChunkId(9), LARGE).await.unwrap();
    assert_ne!(new.disk, disk, "it takes no chunks");
    store.store_registration(numbered(2)).await.unwrap();
    assert!(!store.reopen_disks().await);

    fs.gate.close(None);
    while !store.reopen_disks().await {
        tokio::task::yield_now().await;
    }
    assert_eq!(states(&store), [Healthy, Healthy]);
    assert_eq!((store.usage()[1].chunks, store.usage()[1].read_percent), (2, None));
    conformance::assert_whole(&store, on_b[0].chunk, LARGE).await;
    assert!(store.delete(replica).await.unwrap());
    drop(store);
    fs.inner.crash();
    let store = open(Duration::from_hours(1)).await;
    assert_eq!(states(&store), [Healthy, Healthy], "it missed no registration");
}

/// D5, K4: a disk that hangs at the start, in any of its steps, is missing until it answers.
#[tokio::test]
async fn d05_disk_that_hangs_at_the_start_is_missing_until_it_answers() {
    use DiskState::{Healthy, Missing, Returning};
    for (below, has_registered) in [("/b", false), ("/b", true), ("/b/chunks", true)] {
        let config = dfs_chunkstore::Config {
            slow_after: Duration::from_hours(1),
            hung_after: Duration::from_millis(500),
            ..config(&["/a", "/b"])
        };
        let fs = HangingFs::new();
        let open = async || {
            let random = Arc::new(SeededRandom::new(1));
            DiskStore::open(config.clone(), fs.hooked(), Pool::threads(2), random).await
        };
        let store = open().await.unwrap();
        store.store_registration(numbered(1)).await.unwrap();
        let disks: Vec<_> = store.usage().iter().map(|disk| disk.disk).collect();
        let mut sealed = Vec::new();
        for number in 1..=2 {
            sealed.push(conformance::put(&store, ChunkId(number), LARGE).await.unwrap());
        }
        sealed.sort_by_key(|sealed| sealed.disk != disks[0]);
        let [on_a, on_b] = sealed[..] else { unreachable!() };
        assert_eq!([on_a.disk, on_b.disk], disks[..]);
        drop(store);
        fs.inner.crash();
        fs.gate.close(Some(below));
        let store = open().await.unwrap();
        assert_eq!(states(&store), [Healthy, Missing], "{below}");
        assert_eq!(store.usage()[1].disk, disks[1]);
        assert!(store.usage()[1].reason.contains("as soon as it answers"));
        conformance::assert_whole(&store, on_a.chunk, LARGE).await;
        if has_registered {
            store.store_registration(numbered(2)).await.unwrap();
        }
        assert!(!store.reopen_disks().await, "it still hangs");
        fs.gate.close(None);
        while !store.reopen_disks().await {
            tokio::task::yield_now().await;
        }
        let expected = if has_registered { Returning } else { Healthy };
        assert_eq!(states(&store), [Healthy, expected], "{below}");
        conformance::assert_whole(&store, on_b.chunk, LARGE).await;
        assert_eq!(store.usage()[1].chunks, 1);
        store.settle_disk(disks[1]).await.unwrap();
        assert!(store.delete(on_b.replica()).await.unwrap());
    }
}

/// Once its directory is unlocked, another process may change heads.
#[tokio::test]
async fn disk_that_hangs_while_the_store_is_closed_gets_no_more_indexes() {
    const SMALL: usize = 20 << 10;
    let fs = HangingFs::new();
    let random = Arc::new(SeededRandom::new(1));
    let (shared, pool) = (fs.hooked(), Pool::threads(2));
    let store = DiskStore::open(config(&["/a"]), shared, pool, random).await.unwrap();
    let mut sealed = Vec::new();
    for number in 0..8 {
        sealed.push(conformance::put(&store, ChunkId(number), SMALL).await.unwrap());
    }
    for changed in [0, 3] {
        assert!(store.delete(sealed[changed].replica()).await.unwrap());
    }
    assert_eq!(segment_files(&fs.inner, "v1").len(), 3);
    assert_eq!(segment_files(&fs.inner, "idx").len(), 0);

    fs.gate.close(Some("/a/segments"));
    store.close(Duration::from_millis(50)).await;
    fs.gate.close(None);
    let HangingFs { inner, gate } = fs;
    let in_use = Arc::downgrade(&gate);
    drop((store, gate));
    while in_use.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let written = segment_files(&inner, "idx").len();
    assert!(written <= 1, "{written} were written, not only the one in progress");
}

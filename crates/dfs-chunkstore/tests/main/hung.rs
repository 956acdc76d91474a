//! A disk whose operations do not return.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{
    ChunkStore as _, DiskStore, Fs, FsCall, FsHook, HookedFs, IdentityStore as _, Pool, StoreError,
    conformance,
};
use dfs_types::{ChunkId, DiskState, ErrorCode, SeededRandom};

use crate::support::{config, numbered, states};

const LARGE: usize = 3 << 20;

/// Holds all operations below `/b` while it is closed.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set_closed(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.opened.notify_all();
    }
}

impl FsHook for Gate {
    type Running<'a> = ();

    fn begin(&self, path: &Path, _call: FsCall) -> io::Result<()> {
        if path.starts_with("/b") {
            let is_closed = self.is_closed.lock().unwrap();
            drop(self.opened.wait_while(is_closed, |is_closed| *is_closed).unwrap());
        }
        Ok(())
    }
}

/// A file system whose operations below `/b` hang while its gate is closed.
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
        store.verify(on_b.replica()).await.map(drop),
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

#[tokio::test]
async fn d05_disk_that_hangs_at_the_start_does_not_stop_the_others() {
    let config = dfs_chunkstore::Config {
        hung_after: std::time::Duration::from_secs(2),
        ..config(&["/a", "/b"])
    };
    let fs = HangingFs::new();
    let open = async || {
        let random = Arc::new(SeededRandom::new(1));
        DiskStore::open(config.clone(), fs.hooked(), Pool::threads(2), random).await
    };
    let store = open().await.unwrap();
    store.store_registration(numbered(1)).await.unwrap();
    let sealed = conformance::put(&store, ChunkId(1), LARGE).await.unwrap();
    let disks: Vec<_> = store.usage().iter().map(|disk| disk.disk).collect();
    assert_eq!(sealed.disk, disks[0]);
    drop(store);
    fs.inner.crash();
    fs.gate.set_closed(true);
    let store = open().await.unwrap();
    assert_eq!(states(&store), [DiskState::Healthy, DiskState::Failed]);
    assert_eq!(store.usage()[1].disk, disks[1]);
    conformance::assert_whole(&store, ChunkId(1), LARGE).await;
    fs.gate.set_closed(false);
}

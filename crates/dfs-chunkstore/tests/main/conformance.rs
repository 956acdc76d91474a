//! The conformance suite, on every store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{ChunkStore, DiskStore, MemoryStore, OsFs, Pool, conformance};
use dfs_types::{NodeId, OsRandom};

use crate::support::{config, open_sim};

#[tokio::test]
async fn memory() {
    conformance::run(async || {
        Arc::new(MemoryStore::new(NodeId(1), 64 << 20)) as Arc<dyn ChunkStore>
    })
    .await;
}

#[tokio::test]
async fn simulated_disks() {
    conformance::run(async || {
        let store = open_sim(&SimFs::new(), config(&["/a", "/b"]), 1).await.unwrap();
        Arc::new(store) as Arc<dyn ChunkStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_disks() {
    // The build directory is on a disk; a temporary directory may be in memory.
    for base in [std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")), std::env::temp_dir()] {
        let folder = tempfile::tempdir_in(base).unwrap();
        let count = AtomicUsize::new(0);
        let pool = Pool::threads(4);
        conformance::run(async || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let paths = [
                folder.path().join(format!("{number}/a")),
                folder.path().join(format!("{number}/b")),
            ];
            let paths = paths.each_ref().map(|path| path.to_str().unwrap());
            let fs = Arc::new(OsFs::new());
            let store = DiskStore::open(config(&paths), fs, pool.clone(), Arc::new(OsRandom));
            Arc::new(store.await.unwrap()) as Arc<dyn ChunkStore>
        })
        .await;
    }
}

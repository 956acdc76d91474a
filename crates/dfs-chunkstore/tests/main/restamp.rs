//! Crashes around a new stamp.

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{ChunkStore as _, conformance};
use dfs_types::{ChunkId, SeededRandom};

use crate::support::{config, open_sim};

const CHUNK: ChunkId = ChunkId(5);
/// A small chunk, and one in a file of its own.
const LENGTHS: [usize; 2] = [100, (1 << 20) + 4097];

#[tokio::test]
async fn crash_leaves_a_restamped_replica_whole_under_one_stamp() {
    for length in LENGTHS {
        let mut acknowledged = 0;
        for stop_at in 0..40 {
            let fs = SimFs::new();
            let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
            let old = conformance::put(&store, CHUNK, length).await.unwrap();
            fs.stop_at(fs.operations() + stop_at);
            let new = store.restamp(old.replica()).await.ok();
            acknowledged += usize::from(new.is_some());
            for seed in 0..4 {
                let fs = fs.fork();
                fs.heal();
                match seed {
                    0 => fs.crash(),
                    seed => fs.crash_torn(&SeededRandom::new(seed)),
                }
                let store = open_sim(&fs, config(&["/a"]), 2).await.unwrap();
                conformance::assert_whole(&store, CHUNK, length).await;
                let found = store.list(None, 9).await.unwrap();
                assert_eq!(found.len(), 1);
                if let Some(new) = new {
                    assert_eq!(found, [new], "{length} bytes, stopped at {stop_at}");
                }
            }
        }
        assert!((1..40).contains(&acknowledged), "{acknowledged}");
    }
}

/// Returns the number of syncs of the first seal.
async fn syncs_of_seal(length: usize) -> u64 {
    let fs = SimFs::new();
    let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
    let before = fs.syncs();
    conformance::put(&store, CHUNK, length).await.unwrap();
    fs.syncs() - before
}

/// A process that is killed may leave a replica that it did not sync, which its successor finds.
#[tokio::test]
async fn restamp_makes_a_replica_durable_that_was_never_synced() {
    for length in LENGTHS {
        let syncs = syncs_of_seal(length).await;
        for ignored in 0..syncs {
            let fs = SimFs::new();
            let store = open_sim(&fs, config(&["/a"]), 1).await.unwrap();
            fs.ignore_sync(fs.syncs() + ignored);
            let old = conformance::put(&store, CHUNK, length).await.unwrap();
            drop(store);
            let store = open_sim(&fs, config(&["/a"]), 2).await.unwrap();
            let new = store.restamp(old.replica()).await.unwrap();
            drop(store);
            fs.crash();
            let store = open_sim(&fs, config(&["/a"]), 3).await.unwrap();
            let found = store.list(None, 9).await.unwrap();
            assert_eq!(found, [new], "{length} bytes, sync {ignored} of {syncs}");
            conformance::assert_whole(&store, CHUNK, length).await;
        }
    }
}

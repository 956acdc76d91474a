//! Stores for tests.

use std::path::PathBuf;
use std::sync::Arc;

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{Config, DiskConfig, DiskStore, Fs, OpenError, Pool};
use dfs_types::{Level, SeededRandom};

/// Returns settings of a small store on `folders`, without headroom.
pub(crate) fn config(folders: &[&str]) -> Config {
    let disks = folders
        .iter()
        .map(|folder| DiskConfig { folder: PathBuf::from(folder), capacity: Some(64 << 20) });
    Config {
        disks: disks.collect(),
        headroom_percent: 0,
        headroom_bytes_min: 0,
        high_watermark_percent: 100,
        segment_bytes: 64 << 10,
        level: Level::NEWEST,
    }
}

/// Opens a store on simulated disks; the seed determines its ids.
pub(crate) async fn open_sim(
    fs: &SimFs,
    config: Config,
    seed: u64,
) -> Result<DiskStore, OpenError> {
    let fs: Arc<dyn Fs> = Arc::new(fs.clone());
    DiskStore::open(config, fs, Pool::inline(), Arc::new(SeededRandom::new(seed))).await
}

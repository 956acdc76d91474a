//! Stores for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{
    ChunkStore as _, Config, DiskConfig, DiskStore, Fs, OpenError, Pool, Registration,
};
use dfs_types::{ClusterId, DiskState, Incarnation, Level, RegistrationNumber, SeededRandom};

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
        ..Config::new([])
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

/// Returns the files in `/a/segments` with this extension, in the order of their names.
pub(crate) fn segment_files(fs: &SimFs, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new("/a/segments");
    let files = fs.list(folder).unwrap().into_iter().map(|name| folder.join(name));
    files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Removes the index files of all segments of `/a`, durably, so that the next start reads the heads.
pub(crate) fn remove_indexes(fs: &SimFs) {
    for path in segment_files(fs, "idx") {
        fs.remove(&path).unwrap();
    }
    fs.sync_dir(Path::new("/a/segments")).unwrap();
}

/// Returns the states of the disks.
pub(crate) fn states(store: &DiskStore) -> Vec<DiskState> {
    store.usage().iter().map(|disk| disk.state).collect()
}

/// Returns the first registration with a cluster.
pub(crate) fn registration(cluster: u128) -> Registration {
    let number = RegistrationNumber(1);
    Registration { cluster: ClusterId(cluster), incarnation: Incarnation(1), number }
}

/// Returns a later registration with cluster 1.
pub(crate) fn numbered(number: u64) -> Registration {
    Registration { number: RegistrationNumber(number), ..registration(1) }
}

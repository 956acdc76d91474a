//! Settings of a disk store.

use std::path::PathBuf;
use std::time::Duration;

use dfs_types::Level;

/// One disk of a datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// Directory on it; created if missing.
    pub folder: PathBuf,
    /// Bytes that the store may use on it; `None` for all of it.
    pub capacity: Option<u64>,
}

/// Settings of a disk store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The disks, at least one.
    pub disks: Vec<DiskConfig>,
    /// Percentage of each file system that is left free for other uses.
    pub headroom_percent: u8,
    /// Minimum bytes of each file system that are left free.
    pub headroom_bytes_min: u64,
    /// Fill level of a disk, in percent of its usable bytes, at which new chunks are refused.
    pub high_watermark_percent: u8,
    /// Size of a segment, a file shared by small chunks, in bytes.
    pub segment_bytes: u64,
    /// The newest write level that is read; a disk of a newer level is refused.
    pub level: Level,
    /// Duration of an operation after which its disk counts as slow for a while.
    pub slow_after: Duration,
    /// Time for which opening waits until the disks are read. The rest is read afterwards.
    pub read_within: Duration,
    /// Duration of an operation after which its disk is not used until the operation returns.
    pub hung_after: Duration,
}

impl Config {
    /// Returns settings for these directories, with defaults for the rest.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let disks = folders.into_iter().map(|folder| DiskConfig { folder, capacity: None });
        Self {
            disks: disks.collect(),
            headroom_percent: 1,
            headroom_bytes_min: 256 << 20,
            high_watermark_percent: 95,
            segment_bytes: 64 << 20,
            level: Level::NEWEST,
            slow_after: Duration::from_secs(5),
            hung_after: Duration::from_secs(30),
            read_within: Duration::from_secs(5),
        }
    }
}

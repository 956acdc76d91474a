//! Settings of a disk store.

use std::path::PathBuf;

use dfs_types::Level;

/// One disk of a datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// Folder on it; made when it is not there.
    pub folder: PathBuf,
    /// Bytes the store may use on it; `None` for all there are.
    pub capacity: Option<u64>,
}

/// Settings of a disk store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The disks, at least one.
    pub disks: Vec<DiskConfig>,
    /// Part of each file system that is left free for everything else, in percent.
    pub headroom_percent: u8,
    /// Bytes of each file system that are left free at least.
    pub headroom_bytes_min: u64,
    /// Fill of a disk, in percent of what the store may use, from which on new chunks are refused.
    pub high_watermark_percent: u8,
    /// Bytes of a segment, the file that small chunks share.
    pub segment_bytes: u64,
    /// The newest write level that is read; a disk of a newer one is refused.
    pub level: Level,
}

impl Config {
    /// Settings for these folders, with defaults for the rest.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let disks = folders.into_iter().map(|folder| DiskConfig { folder, capacity: None });
        Self {
            disks: disks.collect(),
            headroom_percent: 1,
            headroom_bytes_min: 256 << 20,
            high_watermark_percent: 95,
            segment_bytes: 64 << 20,
            level: Level::NEWEST,
        }
    }
}

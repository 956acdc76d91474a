//! Capacity and usage of a disk.
//!
//! Directories on one file system share its space: a reservation on one reduces the free space of
//! the others, and usage counts it once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::{ByteSize, ChunkId, DiskId, DiskState, FileSystemId, fair_shares};

use super::config::Config;
use crate::{DiskUsage, StoreError, fs};

/// Limits of one disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes that the store may use.
    capacity: Option<u64>,
    headroom_percent: u8,
    headroom_bytes_min: u64,
    high_watermark_percent: u8,
}

impl Limits {
    pub(super) fn new(config: &Config, capacity: Option<u64>) -> Self {
        Self {
            capacity,
            headroom_percent: config.headroom_percent.min(100),
            headroom_bytes_min: config.headroom_bytes_min,
            high_watermark_percent: config.high_watermark_percent.min(100),
        }
    }
}

/// The file systems of a store's disks.
#[derive(Debug, Default)]
pub(super) struct FileSystems(BTreeMap<FileSystemId, Arc<FileSystem>>);

impl FileSystems {
    /// Returns the file system that reports `found`; a separate one if it cannot be identified.
    pub(super) fn get(&mut self, found: fs::Space) -> Arc<FileSystem> {
        let new = || Arc::new(FileSystem(Mutex::new(Common { found, unwritten: 0 })));
        found.file_system.map_or_else(new, |id| Arc::clone(self.0.entry(id).or_insert_with(new)))
    }
}

/// Space shared by the disks on one file system.
#[derive(Debug)]
pub(super) struct FileSystem(Mutex<Common>);

#[derive(Debug, Clone, Copy)]
struct Common {
    /// Last report of the file system.
    found: fs::Space,
    /// Reserved bytes that the file system does not know of yet.
    unwritten: u64,
}

impl FileSystem {
    /// Taken after the state of a disk, never before it.
    fn lock(&self) -> MutexGuard<'_, Common> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct DiskSpace {
    limits: Limits,
    file_system: Arc<FileSystem>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Bytes of sealed replicas and of reservations.
    used: u64,
    chunks: u64,
    reservations: u64,
}

/// Counts the space of each file system once: gives each disk its share of it.
pub(super) fn share_file_systems(disks: &mut [DiskUsage]) {
    let mut groups = BTreeMap::<FileSystemId, Vec<&mut DiskUsage>>::new();
    for disk in disks.iter_mut().filter(|disk| disk.state.is_in_service()) {
        if let Some(id) = disk.file_system {
            groups.entry(id).or_default().push(disk);
        }
    }
    for group in groups.into_values() {
        let total = group.iter().map(|disk| disk.file_system_free).max().unwrap_or(0);
        let wants: Vec<u64> = group.iter().map(|disk| disk.free).collect();
        for (disk, share) in group.into_iter().zip(fair_shares(total, &wants)) {
            disk.capacity = disk.capacity - disk.free + share;
            disk.free = share;
        }
    }
}

impl DiskSpace {
    pub(super) fn new(limits: Limits, file_system: Arc<FileSystem>) -> Self {
        Self { limits, file_system, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the current report of the file system.
    pub(super) fn refresh(&self, found: fs::Space) {
        self.file_system.lock().found = found;
    }

    /// Adds replicas found on the disk.
    pub(super) fn add(&self, chunks: u64, bytes: u64) {
        let mut state = self.lock();
        state.used += bytes;
        state.chunks += chunks;
    }

    /// Subtracts a replica.
    pub(super) fn subtract(&self, bytes: u64) {
        let mut state = self.lock();
        state.used = state.used.saturating_sub(bytes);
        state.chunks = state.chunks.saturating_sub(1);
    }

    /// Returns the usage of this disk as if it were alone on its file system.
    pub(super) fn usage(&self, disk: DiskId) -> DiskUsage {
        let state = *self.lock();
        let common = *self.file_system.lock();
        let free = self.free(&state, &common);
        DiskUsage {
            disk,
            capacity: state.used + free,
            free,
            file_system: common.found.file_system,
            file_system_free: self.usable(&common),
            chunks: state.chunks,
            writers: state.reservations,
            state: DiskState::Healthy,
            reason: String::new(),
            has_unread_heads: false,
            read_percent: None,
            is_full: self.is_full(&state, &common),
        }
    }

    fn headroom(&self, common: &Common) -> u64 {
        let part = common.found.total / 100 * u64::from(self.limits.headroom_percent);
        part.max(self.limits.headroom_bytes_min)
    }

    /// Returns the bytes that the file system can still take above the headroom.
    fn usable(&self, common: &Common) -> u64 {
        common.found.available.saturating_sub(self.headroom(common) + common.unwritten)
    }

    fn free(&self, state: &State, common: &Common) -> u64 {
        let allowed =
            self.limits.capacity.map_or(u64::MAX, |limit| limit.saturating_sub(state.used));
        self.usable(common).min(allowed)
    }

    fn is_full(&self, state: &State, common: &Common) -> bool {
        let usable = common.found.total.saturating_sub(self.headroom(common));
        let usable = self.limits.capacity.map_or(usable, |limit| limit.min(usable));
        let kept = 100 - u64::from(self.limits.high_watermark_percent);
        self.free(state, common) <= usable / 100 * kept
    }
}

/// Space on a disk for one chunk being written; released when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    space: Arc<DiskSpace>,
    bytes: u64,
    unwritten: u64,
}

impl Reservation {
    /// Reserves the first bytes of a new chunk; `None` above the high watermark.
    pub(super) fn new(space: &Arc<DiskSpace>, bytes: u64) -> Option<Self> {
        let is_full = {
            let mut state = space.lock();
            state.reservations += 1;
            space.is_full(&state, &space.file_system.lock())
        };
        let mut reservation = Self { space: Arc::clone(space), bytes: 0, unwritten: 0 };
        (!is_full && reservation.grow(bytes)).then_some(reservation)
    }

    /// Reserves up to `bytes` in total, down to the headroom.
    pub(super) fn grow_to(&mut self, bytes: u64, chunk: ChunkId) -> Result<(), StoreError> {
        if self.grow(bytes.saturating_sub(self.bytes)) {
            return Ok(());
        }
        let what = format!("chunk {chunk} needs {}, more than is free", ByteSize(bytes));
        Err(StoreError::NoSpace(what))
    }

    fn grow(&mut self, more: u64) -> bool {
        let mut state = self.space.lock();
        let mut common = self.space.file_system.lock();
        if more > self.space.free(&state, &common) {
            return false;
        }
        state.used += more;
        common.unwritten += more;
        drop((common, state));
        self.bytes += more;
        self.unwritten += more;
        true
    }

    /// Records that `bytes` bytes reached the file system, with its current report.
    pub(super) fn written(&mut self, bytes: u64, found: Option<fs::Space>) {
        let bytes = bytes.min(self.unwritten);
        self.unwritten -= bytes;
        let mut common = self.space.file_system.lock();
        common.unwritten = common.unwritten.saturating_sub(bytes);
        if let Some(found) = found {
            common.found = found;
        }
    }

    /// Turns the reservation into a sealed replica of this size.
    pub(super) fn seal(self, bytes: u64) {
        self.space.add(1, bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.space.lock();
        state.used = state.used.saturating_sub(self.bytes);
        state.reservations = state.reservations.saturating_sub(1);
        let mut common = self.space.file_system.lock();
        common.unwritten = common.unwritten.saturating_sub(self.unwritten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn found(available: u64) -> fs::Space {
        fs::Space { total: 11 * GIB, available, file_system: Some(FileSystemId(7)) }
    }

    fn limits(capacity: Option<u64>) -> Limits {
        Limits {
            capacity,
            headroom_percent: 1,
            headroom_bytes_min: GIB,
            high_watermark_percent: 90,
        }
    }

    fn space(capacity: Option<u64>, available: u64) -> Arc<DiskSpace> {
        let file_system = FileSystems::default().get(found(available));
        Arc::new(DiskSpace::new(limits(capacity), file_system))
    }

    #[test]
    fn f14_two_disks_on_one_file_system_count_its_space_once() {
        let mut file_systems = FileSystems::default();
        let mut disk = |capacity| {
            let file_system = file_systems.get(found(11 * GIB));
            Arc::new(DiskSpace::new(limits(capacity), file_system))
        };
        let (first, second, small) = (disk(None), disk(None), disk(Some(GIB)));
        let usage = || {
            let mut disks = [&first, &second, &small].map(|disk| disk.usage(DiskId(1))).to_vec();
            share_file_systems(&mut disks);
            disks.iter().map(|disk| (disk.capacity, disk.free)).collect::<Vec<_>>()
        };
        let share = 9 * GIB / 2;
        assert_eq!(usage(), [(share, share), (share, share), (GIB, GIB)]);
        // Space reserved on one is not free on the other.
        let reserved = Reservation::new(&first, GIB).unwrap();
        assert_eq!(usage(), [(5 * GIB, 4 * GIB), (4 * GIB, 4 * GIB), (GIB, GIB)]);
        assert!(Reservation::new(&second, 9 * GIB + 1).is_none());
        drop(reserved);
        assert_eq!(usage(), [(share, share), (share, share), (GIB, GIB)]);
    }

    #[test]
    fn reservations_count_and_are_released() {
        let space = space(Some(1000), 11 * GIB);
        let free = || space.usage(DiskId(1)).free;
        let mut first = Reservation::new(&space, 400).unwrap();
        first.grow_to(800, ChunkId(1)).unwrap();
        assert_eq!(free(), 200);
        assert!(first.grow_to(1001, ChunkId(1)).is_err());
        first.seal(700);
        assert_eq!((free(), space.usage(DiskId(1)).chunks), (300, 1));
        drop(Reservation::new(&space, 100).unwrap());
        assert_eq!(free(), 300);
    }

    #[test]
    fn new_chunks_stop_at_the_watermark_and_growth_at_the_headroom() {
        let disk = space(None, 2 * GIB + 1000);
        let mut writer = Reservation::new(&disk, GIB / 2).unwrap();
        assert!(disk.usage(DiskId(1)).is_full, "less than a tenth is left");
        assert!(Reservation::new(&disk, 1).is_none());
        writer.grow_to(GIB + 1000, ChunkId(1)).unwrap();
        assert!(writer.grow_to(GIB + 1001, ChunkId(1)).is_err());
        // Bytes reported by the file system are not counted again.
        writer.written(GIB, Some(found(GIB + 2000)));
        writer.grow_to(GIB + 2000, ChunkId(1)).unwrap();
        assert!(writer.grow_to(GIB + 2001, ChunkId(1)).is_err());
    }
}

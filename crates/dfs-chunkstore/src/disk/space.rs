//! How much of a disk may be taken, and how much is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_types::{ByteSize, ChunkId, DiskId};

use super::config::Config;
use crate::{DiskUsage, StoreError, fs};

/// Bounds of one disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes the store may use.
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

#[derive(Debug)]
pub(super) struct DiskSpace {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// As the file system said last.
    found: fs::Space,
    /// Bytes of sealed replicas and of reservations.
    used: u64,
    /// Bytes of reservations that the file system does not know of yet.
    unwritten: u64,
    chunks: u64,
}

impl DiskSpace {
    pub(super) fn new(limits: Limits, found: fs::Space) -> Self {
        let state = State { found, used: 0, unwritten: 0, chunks: 0 };
        Self { limits, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the file system says now.
    pub(super) fn refresh(&self, found: fs::Space) {
        self.lock().found = found;
    }

    /// Counts a replica that was found on the disk.
    pub(super) fn add(&self, bytes: u64) {
        let mut state = self.lock();
        state.used += bytes;
        state.chunks += 1;
    }

    /// Counts a replica out.
    pub(super) fn subtract(&self, bytes: u64) {
        let mut state = self.lock();
        state.used = state.used.saturating_sub(bytes);
        state.chunks = state.chunks.saturating_sub(1);
    }

    pub(super) fn usage(&self, disk: DiskId, is_failed: bool) -> DiskUsage {
        let state = *self.lock();
        let free = self.free(&state);
        DiskUsage {
            disk,
            capacity: state.used + free,
            free,
            chunks: state.chunks,
            is_failed,
            is_full: self.is_full(&state),
        }
    }

    fn headroom(&self, state: &State) -> u64 {
        let part = state.found.total / 100 * u64::from(self.limits.headroom_percent);
        part.max(self.limits.headroom_bytes_min)
    }

    fn free(&self, state: &State) -> u64 {
        let kept = self.headroom(state) + state.unwritten;
        let found = state.found.available.saturating_sub(kept);
        let allowed =
            self.limits.capacity.map_or(u64::MAX, |limit| limit.saturating_sub(state.used));
        found.min(allowed)
    }

    fn is_full(&self, state: &State) -> bool {
        let usable = state.found.total.saturating_sub(self.headroom(state));
        let usable = self.limits.capacity.map_or(usable, |limit| limit.min(usable));
        let kept = 100 - u64::from(self.limits.high_watermark_percent);
        self.free(state) <= usable / 100 * kept
    }
}

/// Room on a disk for one chunk that is being written; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    space: Arc<DiskSpace>,
    bytes: u64,
    unwritten: u64,
}

impl Reservation {
    /// Reserves the first bytes of a new chunk; `None` above the high watermark.
    pub(super) fn new(space: &Arc<DiskSpace>, bytes: u64) -> Option<Self> {
        let mut reservation = Self { space: Arc::clone(space), bytes: 0, unwritten: 0 };
        let is_full = {
            let state = *space.lock();
            space.is_full(&state)
        };
        (!is_full && reservation.grow(bytes)).then_some(reservation)
    }

    /// Reserves up to `bytes` in all, down to the headroom.
    pub(super) fn grow_to(&mut self, bytes: u64, chunk: ChunkId) -> Result<(), StoreError> {
        if self.grow(bytes.saturating_sub(self.bytes)) {
            return Ok(());
        }
        let what = format!("chunk {chunk} wants {} where there is less", ByteSize(bytes));
        Err(StoreError::NoSpace(what))
    }

    fn grow(&mut self, more: u64) -> bool {
        let mut state = self.space.lock();
        if more > self.space.free(&state) {
            return false;
        }
        state.used += more;
        state.unwritten += more;
        drop(state);
        self.bytes += more;
        self.unwritten += more;
        true
    }

    /// So many bytes reached the file system, which says this now.
    pub(super) fn written(&mut self, bytes: u64, found: Option<fs::Space>) {
        let bytes = bytes.min(self.unwritten);
        self.unwritten -= bytes;
        let mut state = self.space.lock();
        state.unwritten = state.unwritten.saturating_sub(bytes);
        if let Some(found) = found {
            state.found = found;
        }
    }

    /// Turns the reservation into a sealed replica of this size.
    pub(super) fn seal(self, bytes: u64) {
        self.space.add(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.space.lock();
        state.used = state.used.saturating_sub(self.bytes);
        state.unwritten = state.unwritten.saturating_sub(self.unwritten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn space(capacity: Option<u64>, available: u64) -> Arc<DiskSpace> {
        let limits = Limits {
            capacity,
            headroom_percent: 1,
            headroom_bytes_min: GIB,
            high_watermark_percent: 90,
        };
        Arc::new(DiskSpace::new(limits, fs::Space { total: 11 * GIB, available }))
    }

    #[test]
    fn reservations_count_and_are_given_back() {
        let space = space(Some(1000), 11 * GIB);
        let free = || space.usage(DiskId(1), false).free;
        let mut first = Reservation::new(&space, 400).unwrap();
        first.grow_to(800, ChunkId(1)).unwrap();
        assert_eq!(free(), 200);
        assert!(first.grow_to(1001, ChunkId(1)).is_err());
        first.seal(700);
        assert_eq!((free(), space.usage(DiskId(1), false).chunks), (300, 1));
        drop(Reservation::new(&space, 100).unwrap());
        assert_eq!(free(), 300);
    }

    #[test]
    fn new_chunks_stop_at_the_watermark_and_growth_at_the_headroom() {
        let disk = space(None, 2 * GIB + 1000);
        let mut writer = Reservation::new(&disk, GIB / 2).unwrap();
        assert!(disk.usage(DiskId(1), false).is_full, "less than a tenth is left");
        assert!(Reservation::new(&disk, 1).is_none());
        writer.grow_to(GIB + 1000, ChunkId(1)).unwrap();
        assert!(writer.grow_to(GIB + 1001, ChunkId(1)).is_err());
        // What the file system has seen written is no longer counted on top of what it says.
        writer.written(GIB, Some(fs::Space { total: 11 * GIB, available: GIB + 2000 }));
        writer.grow_to(GIB + 2000, ChunkId(1)).unwrap();
        assert!(writer.grow_to(GIB + 2001, ChunkId(1)).is_err());
    }
}

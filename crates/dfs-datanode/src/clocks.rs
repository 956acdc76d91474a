//! Clocks of the coordinators, as this node knows them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dfs_types::Timestamp;
use tokio::time::Instant;

/// Maximum number of coordinators whose clocks are remembered; the least recent are evicted.
const CLOCKS_MAX: usize = 256;

/// Clocks of the coordinators: the last time each reported, advanced by the monotonic clock of this
/// process.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    said: Mutex<BTreeMap<u64, (Timestamp, Instant)>>,
}

impl Clocks {
    /// Records the time reported by a coordinator.
    pub(crate) fn record(&self, coordinator: u64, time: Timestamp) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= CLOCKS_MAX && !said.contains_key(&coordinator) {
            let oldest = said.iter().min_by_key(|(_, (_, heard))| *heard);
            if let Some(oldest) = oldest.map(|(coordinator, _)| *coordinator) {
                said.remove(&oldest);
            }
        }
        said.insert(coordinator, (time, Instant::now()));
    }

    /// Returns the latest current time of any coordinator; `None` if none has reported any.
    pub(crate) fn latest(&self) -> Option<Timestamp> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.values().map(|(time, heard)| time.plus(heard.elapsed())).max()
    }

    /// Returns the current time at a coordinator; `None` if it has not reported any.
    pub(crate) fn now(&self, coordinator: u64) -> Option<Timestamp> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, heard) = said.get(&coordinator)?;
        Some(time.plus(heard.elapsed()))
    }
}

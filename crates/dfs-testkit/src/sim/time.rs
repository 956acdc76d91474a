//! The clock of a simulation.

use std::time::{Duration, SystemTime};

use dfs_types::{Clock, Timestamp};

/// When simulations begin: some moment, always the same.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// The begin of a simulation as the system would have it.
pub(super) fn begin() -> SystemTime {
    SystemTime::UNIX_EPOCH + BEGIN
}

/// Simulated time of day. Works within a simulation; outside of one it stands at the begin.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let since = turmoil::since_epoch().unwrap_or(BEGIN);
        Timestamp::from_millis(since.as_millis() as u64)
    }
}

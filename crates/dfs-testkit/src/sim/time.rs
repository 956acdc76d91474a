//! The clock of a simulation.

use std::time::{Duration, SystemTime};

use dfs_types::{Clock, Timestamp};

/// Start of simulations: an arbitrary but fixed time.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// Returns the start of a simulation as a system time.
pub(super) fn begin() -> SystemTime {
    SystemTime::UNIX_EPOCH + BEGIN
}

/// Simulated time of day. Outside a simulation it is the start time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let since = turmoil::since_epoch().unwrap_or(BEGIN);
        Timestamp::from_millis(since.as_millis() as u64)
    }
}

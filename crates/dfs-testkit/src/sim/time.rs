//! The clock of a simulation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dfs_types::{Clock, Timestamp};

/// Start of simulations: an arbitrary but fixed time.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// Returns the start of a simulation as a system time.
pub(super) fn begin() -> SystemTime {
    SystemTime::UNIX_EPOCH + BEGIN
}

/// Simulated time of day. Outside a simulation it is the start time. Clones share their error.
#[derive(Debug, Clone, Default)]
pub struct SimClock {
    /// Milliseconds that it is ahead.
    ahead: Arc<AtomicU64>,
}

impl SimClock {
    /// Sets how far it is ahead of the right time.
    pub(super) fn set_ahead(&self, ahead: Duration) {
        self.ahead.store(ahead.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let since = turmoil::since_epoch().unwrap_or(BEGIN);
        Timestamp::from_millis(since.as_millis() as u64 + self.ahead.load(Ordering::Relaxed))
    }
}

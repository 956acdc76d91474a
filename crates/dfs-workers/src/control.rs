//! Administrators' settings of a worker.

use tokio::time::Instant;

/// An administrator's settings for a worker; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Control {
    /// End of the pause; `None` when there is none.
    pub paused_until: Option<Instant>,
    /// Units per second in place of the budget of the spec; 0 for unlimited.
    pub rate: Option<u64>,
    /// Number of the newest request to do everything at once; 0 for none.
    pub request: u64,
}

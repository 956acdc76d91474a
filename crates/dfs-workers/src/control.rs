//! What administrators set for a worker.

use tokio::time::Instant;

/// What administrators set for a worker. The default sets nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Control {
    /// When the pause ends by itself; `None` when there is none.
    pub paused_until: Option<Instant>,
    /// Units a second in place of the budget of the spec; 0 for no bound.
    pub rate: Option<u64>,
}

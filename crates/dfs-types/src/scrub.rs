//! How far the scrub of a disk is.

use std::time::Duration;

use crate::Timestamp;

/// A pass of the scrub that has read every replica on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholePass {
    /// Its end, by the clock of a coordinator.
    pub end: Timestamp,
    /// Bytes read.
    pub bytes: u64,
    /// Replicas found bad, absent or unreadable.
    pub errors: u64,
}

/// The scrub of a disk: its last whole pass and the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskScrub {
    /// The last whole pass; `None` if there was none.
    pub last: Option<WholePass>,
    /// Replicas read in the current pass.
    pub replicas: u64,
    /// Replicas found bad, absent or unreadable in the current pass.
    pub errors: u64,
    /// Replicas that the current pass has yet to read, as of the last count.
    pub left_replicas: u64,
    /// Bytes of those.
    pub left_bytes: u64,
    /// Time within which a pass is to read everything; `None` if it reads only on request.
    pub every: Option<Duration>,
}

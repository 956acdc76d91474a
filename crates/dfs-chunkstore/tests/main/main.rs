//! Tests of the chunk store against real and simulated disks.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod absent;
mod conformance;
mod crash;
mod faults;
mod heads;
mod hung;
mod missing;
mod restamp;
mod segment_index;
mod stale;
mod start;
mod support;

//! Failures of a realistic size, rehearsed with real processes and measured.

pub mod gc;
mod load;
pub mod repair;
pub mod synced_writes;

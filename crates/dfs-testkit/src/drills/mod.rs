//! Failures of a realistic size, rehearsed with real processes and measured.

pub mod gc;
mod ledger;
mod load;
pub mod powercut;
pub mod repair;
pub mod synced_writes;

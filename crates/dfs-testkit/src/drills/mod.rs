//! Failures of a realistic size, rehearsed with real processes and measured.

mod expected_files;
pub mod gc;
mod load;
pub mod powercut;
pub mod repair;
pub mod synced_writes;

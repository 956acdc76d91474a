//! Fakes, fault injection, process clusters and simulation for tests. Never shipped.

#![expect(clippy::panic, reason = "a test that cannot continue must fail")]

pub mod drills;
pub mod faults;
pub mod process;
pub mod sim;

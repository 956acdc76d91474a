//! Fakes, fault injection, process clusters and simulation for tests. Never shipped.

#![allow(clippy::panic, reason = "how a test fails")]

pub mod process;

//! A whole coordinator over gRPC, on the memory engine, with datanodes that only pretend.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod cases;
mod cluster;

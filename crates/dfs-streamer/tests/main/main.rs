//! The streamer against a toy model of a chunk, over faulty links.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests panic as tests do.

mod faults;
mod grpc;
mod refusals;
mod replicas;
mod resume;
mod toy;
mod window;

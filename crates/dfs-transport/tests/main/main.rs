//! Channels and servers, over a network within this process.
#![allow(clippy::unwrap_used)] // Helpers of tests panic as tests do.

mod channels;
mod connections;
mod dialling;
mod draining;
mod limits;
mod logs;
mod request_ids;
mod scopes;
mod service;

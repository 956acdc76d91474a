//! The operator against an in-process API server and coordinators.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod api_server;
mod cluster;
mod crashes;
mod definition;
mod lease;
mod operator;
mod steps;
mod toy;

//! The operator against an API server and coordinators that live in the test.

mod api_server;
mod cluster;
mod lease;
mod operator;
mod steps;

//! The streamer against a toy model of a chunk, over links that fail.

mod faults;
mod grpc;
mod refusals;
mod replicas;
mod resume;
mod toy;
mod window;

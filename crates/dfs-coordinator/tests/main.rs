//! A whole coordinator over gRPC, on the memory engine, with datanodes that only pretend.

mod cases;
mod cluster;

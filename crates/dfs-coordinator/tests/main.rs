//! A whole coordinator over gRPC, on the memory engine, with datanodes that only pretend.

// `cfg(test)` holds in any case; it tells clippy that helpers belong to tests, too.
#[cfg(test)]
mod cases;
#[cfg(test)]
mod cluster;

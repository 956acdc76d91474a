//! A whole coordinator over gRPC, on the memory engine, with fake datanodes.

// `cfg(test)` always holds; it tells clippy that helpers belong to tests, too.
#[cfg(test)]
mod cases;
#[cfg(test)]
mod cluster;

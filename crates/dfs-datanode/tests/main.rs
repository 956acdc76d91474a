//! A whole datanode over gRPC, on a store and a network in memory, with a coordinator that only
//! pretends.

// `cfg(test)` holds in any case; it tells clippy that helpers belong to tests, too.
#[cfg(test)]
mod cases;
#[cfg(test)]
mod cluster;

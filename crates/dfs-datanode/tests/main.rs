//! A complete datanode over gRPC, on an in-memory store and network, with a fake coordinator.

// `cfg(test)` always holds; it makes clippy treat helpers as tests too.
#[cfg(test)]
mod cases;
#[cfg(test)]
mod cluster;

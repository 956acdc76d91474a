//! Fakes, fault injection, process clusters and simulation for tests

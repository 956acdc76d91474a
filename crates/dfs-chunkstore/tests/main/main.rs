//! Tests of the chunk store against real and simulated disks.

mod conformance;
mod crash;
mod support;

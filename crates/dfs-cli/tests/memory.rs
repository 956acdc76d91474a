//! An idle server is small.

use crate::support::cluster;

const IDLE_MAX: u64 = 20 << 20;
/// What is left without the pages of the executable.
const OWN_MAX: u64 = 8 << 20;

#[test]
fn an_idle_server_has_little_of_its_own() {
    let cluster = cluster();
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let own = server.memory().own;
        assert!(own < OWN_MAX, "{} KiB are its own", own / 1_024);
    }
}

#[test]
#[ignore = "of a release build, as unoptimised code is larger: `cargo xtask release`"]
fn an_idle_server_is_small() {
    let cluster = cluster();
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let memory = server.memory();
        println!("{} KiB, {} KiB of them its own", memory.total / 1_024, memory.own / 1_024);
        assert!(memory.total < IDLE_MAX, "{memory:?}");
    }
}

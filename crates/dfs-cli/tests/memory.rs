//! Memory of an idle server.

use crate::support::cluster;

const IDLE_MAX: u64 = 20 << 20;
/// Limit without the pages of the executable.
const OWN_MAX: u64 = 8 << 20;

#[test]
fn idle_server_uses_little_anonymous_memory() {
    let cluster = cluster();
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let own = server.memory().own;
        assert!(own < OWN_MAX, "{} KiB of anonymous memory", own / 1_024);
    }
}

#[test]
#[ignore = "needs a release build, as unoptimised code is larger: `cargo xtask release`"]
fn idle_server_is_small() {
    let cluster = cluster();
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let memory = server.memory();
        println!("{} KiB, {} KiB of them anonymous", memory.total / 1_024, memory.own / 1_024);
        assert!(memory.total < IDLE_MAX, "{memory:?}");
    }
}

//! An idle server is small.

use crate::support::cluster;

const MIB: u64 = 1 << 20;

#[test]
fn an_idle_server_is_small() {
    let cluster = cluster();
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let memory = server.memory();
        assert!(memory < 8 * MIB, "{} KiB are its own", memory / 1_024);
    }
}

//! Memory is bounded, when much happens and when nothing does.

use crate::support::{cluster, noise_file};

const MIB: u64 = 1 << 20;

#[test]
fn an_idle_server_is_small() {
    let cluster = cluster();
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let memory = server.memory();
        assert!(memory < 20 * MIB, "{} KiB are resident", memory / 1_024);
    }
}

#[test]
fn sixty_four_puts_at_once_stay_within_256_mib_each() {
    let cluster = cluster();
    let tree = cluster.folder().join("tree");
    std::fs::create_dir(&tree).unwrap();
    for n in 0..64 {
        noise_file(&tree.join(n.to_string()), 64 << 20, n);
    }
    let mut put = cluster.command(["put", "-r", "--parallel", "64"]);
    let mut put = put.args([tree.as_os_str(), "/tree".as_ref()]).spawn().unwrap();
    let status = format!("/proc/{}/status", put.id());
    let mut peak = 0;
    let mut ended = None;
    let has_ended = dfs_testkit::process::wait_until(std::time::Duration::from_mins(5), || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1_024);
        ended = put.try_wait().unwrap();
        ended.is_some()
    });
    assert!(has_ended && ended.is_some_and(|status| status.success()), "{ended:?}");
    assert!(peak < 256 * MIB, "the client took {} MiB", peak / MIB);
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        let peak = server.peak_memory();
        assert!(peak < 256 * MIB, "a server took {} MiB", peak / MIB);
    }
}

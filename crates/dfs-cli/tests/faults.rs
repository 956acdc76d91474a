//! Several coordinators on etcd under faults, briefly. `cargo xtask faults` runs longer.

use std::io::{self, Write as _};
use std::time::Duration;

use dfs_testkit::faults::{Options, run};

use crate::support::binary;

/// Long enough for each fault once.
const TIME: Duration = Duration::from_secs(100);

#[test]
fn history_stays_linearizable_under_every_fault() {
    let keep = std::env::temp_dir().join("dfs-faults");
    let fault = String::new();
    let options = Options { binary: binary(), seed: 1, time: TIME, fault, keep };
    let report = run(&options).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{report}");
    if !report.has_partitions() {
        let why = "NOT TESTED: network partitions, which require root";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        drop(io::stderr().write_all(format!("\n{why}\n").as_bytes()));
    }
}

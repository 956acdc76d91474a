//! Large failures at a small size. `cargo xtask drill` rehearses them at a realistic one.

use std::time::Duration;

use dfs_testkit::drills::{gc, repair};

use crate::support::binary;

#[test]
fn repair_grows_with_what_was_lost_and_users_lose_no_call() {
    let quiet = Duration::from_secs(2);
    let options = repair::Options { binary: binary(), small: 400, large: 0, changes: 2, quiet };
    let report = repair::run(&options).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{report}");
}

#[test]
fn gc_deletes_all_orphans_and_nothing_else_while_files_are_written() {
    let options = gc::Options { binary: binary(), orphans: 600, time: Duration::from_secs(5) };
    let report = gc::run(&options).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{report}");
}

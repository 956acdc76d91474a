//! Checks that need a release build. Not part of `verify`, as they compile everything again.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::process::{cargo, output, release_dfs, run as run_command};

pub(crate) const USAGE: &str =
    "(runs the tour with a release build, and measures the memory of idle servers)";

pub(crate) fn run(root: &Path, _arguments: &[String]) -> Result<()> {
    // As in the README.
    let tour = ["run", "--locked", "--release", "--bin=dfs", "--", "local", "--demo"];
    run_command(&mut cargo(root, &tour))?;
    let program = release_dfs(root)?;
    let mut test = cargo(root, &["test", "--locked", "--workspace", "--test=processes", "--"]);
    test.args(["memory::", "--ignored", "--nocapture"]).env("DFS_TEST_PROGRAM", program);
    let said = String::from_utf8_lossy(&output(&mut test)?).into_owned();
    print!("{said}");
    ensure!(said.contains("test result: ok. 1 passed"), "the memory test did not run");
    Ok(())
}

//! What only a release build can show. Outside of `verify`, as it compiles everything once more.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::process::{cargo, output, release_dfs, run as run_command};

pub(crate) const USAGE: &str =
    "(takes the tour with a release build, and looks at the memory that idle servers take)";

pub(crate) fn run(root: &Path, _arguments: &[String]) -> Result<()> {
    // As the README has it.
    let tour = ["run", "--locked", "--release", "--bin=dfs", "--", "local", "--demo"];
    run_command(&mut cargo(root, &tour))?;
    let program = release_dfs(root)?;
    let mut test = cargo(root, &["test", "--locked", "--workspace", "--test=processes", "--"]);
    test.args(["memory::", "--ignored", "--nocapture"]).env("DFS_TEST_PROGRAM", program);
    let said = String::from_utf8_lossy(&output(&mut test)?).into_owned();
    print!("{said}");
    ensure!(said.contains("test result: ok. 1 passed"), "the test of memory is not there");
    Ok(())
}

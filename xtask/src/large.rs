//! Test of a 4 GiB file, too large for every test run.

use std::path::Path;

use anyhow::Result;

use crate::process::{cargo, release_dfs, run as run_command};

pub(crate) const USAGE: &str = "(puts and gets 4 GiB, and measures the memory used)";

pub(crate) fn run(root: &Path, _arguments: &[String]) -> Result<()> {
    let dfs = release_dfs(root)?;
    let example = ["run", "--quiet", "--locked", "--release", "-p", "dfs-testkit", "--example"];
    run_command(cargo(root, &example).args(["large", "--"]).arg(dfs))
}

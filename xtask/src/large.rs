//! The file of 4 GiB, which is too much for every test run.

use std::path::Path;

use anyhow::Result;

use crate::process::{cargo, release_dfs, run as run_command};

pub(crate) const USAGE: &str = "(puts and gets 4 GiB, with a look at the memory it takes)";

pub(crate) fn run(root: &Path, _arguments: &[String]) -> Result<()> {
    let dfs = release_dfs(root)?;
    let example = ["run", "--quiet", "--locked", "--release", "-p", "dfs-testkit", "--example"];
    run_command(cargo(root, &example).args(["large", "--"]).arg(dfs))
}

//! Runs the simulation manually.

use std::path::Path;

use anyhow::Result;

use crate::process::{cargo, run as run_command};

pub(crate) const USAGE: &str = "--seed N | --seeds A..B (simulates a cluster; one seed shows all)";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let mut command =
        cargo(root, &["run", "--quiet", "--locked", "-p", "dfs-testkit", "--example", "sim", "--"]);
    run_command(command.args(arguments))
}

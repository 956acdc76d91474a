//! Runs fault injection under load manually.

use std::path::Path;

use anyhow::Result;

use crate::process::{cargo, release_dfs, run as run_command};

pub(crate) const USAGE: &str = "[--minutes M] [--seed N] [--fault NAME] (kills, stops, cuts off and damages under load; as root)";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let dfs = release_dfs(root)?;
    let example = ["run", "--quiet", "--locked", "--release", "-p", "dfs-testkit", "--example"];
    run_command(cargo(root, &example).args(["faults", "--"]).arg(dfs).args(arguments))
}

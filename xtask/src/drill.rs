//! Rehearses large failures manually.

use std::path::Path;

use anyhow::Result;

use crate::process::{cargo, release_dfs, run as run_command};

pub(crate) const USAGE: &str = "repair [--small N] [--large N] [--changes N] | gc [--orphans N] [--minutes M] (loses nodes, plants orphans; measures)";
pub(crate) const POWERCUT_USAGE: &str =
    "[--rounds N] [--seed N] (cuts the power of machines under load; as root)";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    drill(root, &[], arguments)
}

pub(crate) fn powercut(root: &Path, arguments: &[String]) -> Result<()> {
    drill(root, &["powercut"], arguments)
}

fn drill(root: &Path, name: &[&str], arguments: &[String]) -> Result<()> {
    let dfs = release_dfs(root)?;
    let example = ["run", "--quiet", "--locked", "--release", "-p", "dfs-testkit", "--example"];
    run_command(cargo(root, &example).args(["drill", "--"]).arg(dfs).args(name).args(arguments))
}

//! Runs the simulation manually.

use std::path::Path;

use anyhow::Result;

use crate::process::{cargo, run as run_command};

pub(crate) const USAGE: &str = "--seed N | --seeds A..B [--bug NAME] (simulates a cluster; one seed shows all; a planted bug must be found)";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let plants_bug = arguments.iter().any(|argument| argument == "--bug");
    let features: &[&str] = if plants_bug { &["--features", "planted-bugs"] } else { &[] };
    let package = ["run", "--quiet", "--locked", "-p", "dfs-testkit", "--example", "sim"];
    let mut command = cargo(root, &[&package, features, &["--"]].concat());
    run_command(command.args(arguments))
}

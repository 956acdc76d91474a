//! Brings the tree into the form required by `verify`, as far as that can be automated.

use std::path::Path;

use anyhow::Result;

use crate::generate;
use crate::process::{cargo, run as run_command};

pub(crate) const USAGE: &str = "(generates, applies lints, formats)";

pub(crate) fn run(root: &Path, _arguments: &[String]) -> Result<()> {
    generate::run(root, &[])?;
    run_command(&mut cargo(
        root,
        &["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"],
    ))?;
    run_command(&mut cargo(root, &["fmt", "--all"]))
}

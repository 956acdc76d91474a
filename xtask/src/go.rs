//! Programs found in the PATH, or built once with Go.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{output, run};

/// Returns the path of the program in `package`. If it is not installed, builds it in the target
/// directory, which takes a few minutes and needs Go. The argument `version` makes the program
/// print its version.
pub(crate) fn find(root: &Path, name: &str, version: &str, package: &str) -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let tools = target.join("tools");
    for candidate in [PathBuf::from(name), tools.join(name)] {
        if output(Command::new(&candidate).arg(version)).is_ok() {
            return Ok(candidate);
        }
    }
    println!("verify: {name} is not installed; building {package}");
    run(Command::new("go").args(["install", "-trimpath", package]).env("GOBIN", &tools))
        .with_context(|| format!("install {name}, or Go to build it"))?;
    Ok(tools.join(name))
}

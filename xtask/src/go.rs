//! Programs that are in the PATH, or that Go builds once.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{output, run};

/// Where the program is that `package` makes. Builds it beside what cargo builds where it is
/// missing, which takes some minutes and needs Go. With `version` it says its version.
pub(crate) fn find(root: &Path, name: &str, version: &str, package: &str) -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let tools = target.join("tools");
    for candidate in [PathBuf::from(name), tools.join(name)] {
        if output(Command::new(&candidate).arg(version)).is_ok() {
            return Ok(candidate);
        }
    }
    println!("verify: there is no {name}; building {package}");
    run(Command::new("go").args(["install", "-trimpath", package]).env("GOBIN", &tools))
        .with_context(|| format!("install {name}, or Go, which builds it"))?;
    Ok(tools.join(name))
}

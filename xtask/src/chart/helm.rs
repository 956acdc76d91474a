//! The program helm: the one in the PATH, or one that Go builds once.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{output, run};

/// What is built where there is none.
const PACKAGE: &str = "helm.sh/helm/v3/cmd/helm@v3.21.4";

/// Where helm is. Builds it beside what cargo builds where it is missing, which takes some minutes
/// and needs Go.
pub(super) fn find(root: &Path) -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let tools = target.join("tools");
    for candidate in [PathBuf::from("helm"), tools.join("helm")] {
        if output(Command::new(&candidate).arg("version")).is_ok() {
            return Ok(candidate);
        }
    }
    println!("verify: there is no helm; building {PACKAGE}");
    run(Command::new("go").args(["install", "-trimpath", PACKAGE]).env("GOBIN", &tools))
        .context("install helm, or Go, which builds it")?;
    Ok(tools.join("helm"))
}

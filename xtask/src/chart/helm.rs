//! The program helm.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::go;

/// Built if helm is not installed.
const PACKAGE: &str = "helm.sh/helm/v3/cmd/helm@v3.21.4";

/// Returns the path of helm.
pub(super) fn find(root: &Path) -> Result<PathBuf> {
    go::find(root, "helm", "version", PACKAGE)
}

//! The program helm.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::go;

/// What is built where there is none.
const PACKAGE: &str = "helm.sh/helm/v3/cmd/helm@v3.21.4";

/// Where helm is.
pub(super) fn find(root: &Path) -> Result<PathBuf> {
    go::find(root, "helm", "version", PACKAGE)
}

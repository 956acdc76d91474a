//! Checks of the forge's workflows, which nothing else here runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::go;
use crate::process::run;

/// Built if actionlint is not installed.
const PACKAGE: &str = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7";
const FOLDER: &str = ".github/workflows";
/// Parts that a release must keep (C65): both architectures, an SBOM of the image, and signatures
/// of the image and the chart.
const RELEASE: (&str, [&str; 5]) = (
    "images.yaml",
    [
        "arch: amd64",
        "arch: arm64",
        "--sbom=true --provenance=mode=max",
        "cosign sign --yes --recursive \"$image@$digest\"",
        "cosign sign --yes \"$REGISTRY/charts/dfs@$digest\"",
    ],
);

pub(super) fn check(root: &Path) -> Result<()> {
    let folder = root.join(FOLDER);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("cannot list {FOLDER}"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    ensure!(!files.is_empty(), "{FOLDER} is empty");
    let (release, parts) = RELEASE;
    let text = fs::read_to_string(folder.join(release))
        .with_context(|| format!("cannot read {FOLDER}/{release}"))?;
    for part in parts {
        ensure!(text.contains(part), "{FOLDER}/{release} lacks {part:?}");
    }
    let linter = go::find(root, "actionlint", "-version", PACKAGE)?;
    // Scripts in them would be checked by shellcheck, which is not installed everywhere.
    run(Command::new(linter).args(["-shellcheck=", "-pyflakes="]).args(files).current_dir(root))
}

//! What runs on the machines of the forge, which nothing else here would run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::go;
use crate::process::run;

/// What is built where there is no actionlint.
const PACKAGE: &str = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7";
const FOLDER: &str = ".github/workflows";
/// What a release must not lose (C65): both architectures, a list of what is in an image, and a
/// signature of it and of the chart.
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
        ensure!(text.contains(part), "{FOLDER}/{release} has no {part:?} any more");
    }
    let linter = go::find(root, "actionlint", "-version", PACKAGE)?;
    // What scripts in them say is for shellcheck, which is not everywhere.
    run(Command::new(linter).args(["-shellcheck=", "-pyflakes="]).args(files).current_dir(root))
}

//! The images of the Dockerfile, of binaries that are compiled here.
//!
//! The dev profile, as the tests have it compiled already: it is optimised enough, and a release
//! build would compile everything once more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{cargo, output, run as run_command};

pub(crate) const USAGE: &str = "CLUSTER-PROGRAM (builds the images and loads them into a cluster)";

/// Who is compiled.
const PACKAGES: [&str; 3] = ["dfs-cli", "dfs-operator", "dfs-e2e"];
const BINARIES: [&str; 3] = ["dfs", "dfs-operator", "dfs-e2e-client"];
/// What the Dockerfile builds on unless told otherwise.
const BASE: &str = "gcr.io/distroless/cc-debian12:nonroot";
const REPOSITORY: &str = "ghcr.io/dfs-io";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The image of the tests' own pods: the command line, and what makes load.
const CLIENT: &str = "dfs.test/dfs-e2e:e2e";

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let [program] = arguments else { anyhow::bail!("cargo xtask images {USAGE}") };
    load(root, &std::path::absolute(program)?)
}

/// Builds all images and loads them with `program load FILE…`.
pub(crate) fn load(root: &Path, program: &Path) -> Result<()> {
    let folder = target(root)?.join("e2e");
    let out = folder.join("out");
    fs::create_dir_all(&out).context("cannot make a folder for binaries")?;
    compile(root, &out)?;
    run_command(Command::new(program).args(["base-image", BASE]))?;

    let dfs = format!("{REPOSITORY}/dfs:{VERSION}");
    // The same under another version, for upgrades.
    let next = format!("{REPOSITORY}/dfs:{VERSION}-next");
    let operator = format!("{REPOSITORY}/dfs-operator:{VERSION}");
    let context = format!("build={}", folder.display());
    for (target, image) in [("dfs", &dfs), ("dfs-operator", &operator)] {
        let build = ["build", "--quiet", "--target", target, "--tag", image];
        run_command(buildah().args(build).args(["--build-context", &context]).arg(root))?;
    }
    run_command(buildah().args(["tag", &dfs, &next]))?;
    let client = folder.join("Dockerfile");
    fs::write(&client, format!("FROM {dfs}\nCOPY out/dfs-e2e-client /usr/local/bin/\n"))?;
    let build = ["build", "--quiet", "--tag", CLIENT, "--file"];
    run_command(buildah().args(build).arg(&client).arg(&folder))?;

    let mut archives = Vec::new();
    for (name, image) in
        [("dfs", dfs.as_str()), ("next", &next), ("operator", &operator), ("client", CLIENT)]
    {
        let archive = folder.join(format!("dfs-e2e-{name}.tar"));
        if archive.exists() {
            fs::remove_file(&archive)?;
        }
        let to = format!("docker-archive:{}:{image}", archive.display());
        run_command(buildah().args(["push", "--quiet", image, &to]))?;
        archives.push(archive);
    }
    run_command(Command::new(program).arg("load").args(archives))
}

/// Compiles the binaries and puts them where the Dockerfile looks for them, without what only a
/// debugger reads.
fn compile(root: &Path, out: &Path) -> Result<()> {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    run_command(cargo(root, &["build", "--locked", "--bins"]).args(packages))?;
    let built = target(root)?.join("debug");
    for binary in BINARIES {
        let strip = ["--strip-debug", "-o"];
        run_command(
            Command::new("strip").args(strip).arg(out.join(binary)).arg(built.join(binary)),
        )?;
    }
    Ok(())
}

/// Compiles the command line, for tests that use it outside of the cluster; says where it is.
pub(crate) fn command_line(root: &Path) -> Result<PathBuf> {
    run_command(&mut cargo(root, &["build", "--locked", "--package", "dfs-cli", "--bins"]))?;
    Ok(target(root)?.join("debug/dfs"))
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> Result<PathBuf> {
    let arguments = ["metadata", "--locked", "--no-deps", "--format-version=1"];
    let metadata: serde_json::Value =
        serde_json::from_slice(&output(&mut cargo(root, &arguments))?)?;
    let target = metadata["target_directory"].as_str();
    Ok(PathBuf::from(target.context("cargo metadata names no target directory")?))
}

/// As it works without a daemon and without mounts.
fn buildah() -> Command {
    let mut command = Command::new("buildah");
    command.env("BUILDAH_ISOLATION", "chroot").env("STORAGE_DRIVER", "vfs");
    command
}

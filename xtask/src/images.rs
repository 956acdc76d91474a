//! Images of the Dockerfile, with binaries compiled here.
//!
//! They use the dev profile, which the tests have already compiled: it is fast enough, and a
//! release build would compile everything again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{cargo, output, run as run_command, target};

pub(crate) const USAGE: &str =
    "CLUSTER-PROGRAM (builds the images and loads them into a cluster; also as the next version)";

const BINARIES: [&str; 3] = ["dfs", "dfs-operator", "dfs-e2e-client"];
/// Default base image of the Dockerfile.
const BASE: &str = "gcr.io/distroless/cc-debian12:nonroot";
const REPOSITORY: &str = "ghcr.io/dfs-io";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Image of the tests' own pods: the command line, and the load generator.
const CLIENT: &str = "dfs.test/dfs-e2e:e2e";

/// Versions of this tree to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    /// The version of the tree.
    This,
    /// The version of the tree, and the next minor version, which the upgrade tests need. Compiles
    /// everything again.
    AndNext,
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let [program] = arguments else { anyhow::bail!("cargo xtask images {USAGE}") };
    load(root, &std::path::absolute(program)?, Versions::AndNext)
}

/// Builds images and loads them with `program load FILE…`.
pub(crate) fn load(root: &Path, program: &Path, versions: Versions) -> Result<()> {
    let target = target(root)?;
    let folder = target.join("e2e");
    run_command(Command::new(program).args(["base-image", BASE]))?;
    let mut archives = Vec::new();

    // First, as cargo puts the binaries of both into one directory, which should end up with those
    // of this tree.
    if versions == Versions::AndNext {
        let next = next_version(VERSION)?;
        let (source, folder) = (folder.join("next-source"), folder.join("next"));
        copy_as(root, &source, &next)?;
        compile(&source, &target, &folder.join("out"))?;
        for name in ["dfs", "dfs-operator"] {
            archives.push(image(root, &folder, name, &next)?);
        }
    }

    compile(root, &target, &folder.join("out"))?;
    for name in ["dfs", "dfs-operator"] {
        archives.push(image(root, &folder, name, VERSION)?);
    }
    let client = folder.join("Dockerfile");
    let dfs = format!("{REPOSITORY}/dfs:{VERSION}");
    fs::write(&client, format!("FROM {dfs}\nCOPY out/dfs-e2e-client /usr/local/bin/\n"))?;
    let build = ["build", "--quiet", "--tag", CLIENT, "--file"];
    run_command(buildah().args(build).arg(&client).arg(&folder))?;
    archives.push(archive(&folder, CLIENT)?);
    run_command(Command::new(program).arg("load").args(archives))
}

/// Returns the minor version after this one.
fn next_version(version: &str) -> Result<String> {
    let parts: Vec<&str> = version.split('.').collect();
    let [major, minor, _] = parts[..] else { anyhow::bail!("{version} is not a version") };
    Ok(format!("{major}.{}.0", minor.parse::<u32>()? + 1))
}

/// Copies the tree with another version. Unchanged files keep their times, so that only changes
/// are compiled again.
fn copy_as(root: &Path, to: &Path, version: &str) -> Result<()> {
    let git = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let files = output(Command::new("git").current_dir(root).args(git))?;
    let files = String::from_utf8(files).context("a file of the tree has an odd name")?;
    for file in files.split_terminator('\0') {
        let (from, to) = (root.join(file), to.join(file));
        let Ok(mut content) = fs::read(&from) else { continue };
        if file == "Cargo.toml" {
            let (ours, theirs) =
                (format!("version = \"{VERSION}\""), format!("version = \"{version}\""));
            content = String::from_utf8(content)?.replacen(&ours, &theirs, 1).into_bytes();
        }
        if file != "Cargo.lock" && fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file without a directory")?)?;
        fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))?;
    }
    run_command(&mut cargo(to, &["update", "--quiet", "--offline", "--workspace"]))
}

/// Compiles the binaries, strips debug information, and puts them where the Dockerfile expects
/// them.
fn compile(root: &Path, target: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out).context("cannot create a directory for binaries")?;
    let what = ["build", "--locked", "--workspace", "--bins"];
    run_command(cargo(root, &what).env("CARGO_TARGET_DIR", target))?;
    for binary in BINARIES {
        let (from, to) = (target.join("debug").join(binary), out.join(binary));
        run_command(Command::new("strip").args(["--strip-debug", "-o"]).args([to, from]))?;
    }
    Ok(())
}

/// Builds an image of the Dockerfile from the binaries in a directory.
fn image(root: &Path, folder: &Path, target: &str, version: &str) -> Result<PathBuf> {
    let tag = format!("{REPOSITORY}/{target}:{version}");
    let build = ["build", "--quiet", "--target", target, "--tag", &tag];
    let context = format!("build={}", folder.display());
    run_command(buildah().args(build).args(["--build-context", &context]).arg(root))?;
    archive(folder, &tag)
}

/// Packs an image.
fn archive(folder: &Path, tag: &str) -> Result<PathBuf> {
    let archive = folder.join(format!("{}.tar", tag.replace(['/', ':'], "-")));
    if archive.exists() {
        fs::remove_file(&archive)?;
    }
    let to = format!("docker-archive:{}:{tag}", archive.display());
    run_command(buildah().args(["push", "--quiet", tag, &to]))?;
    Ok(archive)
}

/// Compiles the command line for tests that run outside the cluster, and returns its path.
pub(crate) fn command_line(root: &Path) -> Result<PathBuf> {
    run_command(&mut cargo(root, &["build", "--locked", "--workspace", "--bins"]))?;
    Ok(target(root)?.join("debug/dfs"))
}

/// Returns a buildah command that works without a daemon and without mounts.
fn buildah() -> Command {
    let mut command = Command::new("buildah");
    command.env("BUILDAH_ISOLATION", "chroot").env("STORAGE_DRIVER", "vfs");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_version_is_a_minor_one() {
        assert_eq!(next_version("0.1.0").unwrap(), "0.2.0");
        assert_eq!(next_version("1.9.4").unwrap(), "1.10.0");
        assert!(next_version("1.9").is_err());
    }
}

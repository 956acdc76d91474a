//! Runs other programs.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Returns the path of the cargo that runs this program.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root).args(arguments);
    command
}

/// Runs a program to its end, with inherited output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", name(command)))?;
    if !status.success() {
        bail!("{} exited with {status}", name(command));
    }
    Ok(())
}

/// Runs a program to its end, and passes on its stdout, each line of which `read` sees.
pub(crate) fn run_reading(command: &mut Command, mut read: impl FnMut(&str)) -> Result<()> {
    let name = name(command);
    let cannot = || format!("cannot run {name}");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(cannot)?;
    let stdout = child.stdout.take().with_context(cannot)?;
    let (mut stdout, mut line) = (BufReader::new(stdout), Vec::new());
    while stdout.read_until(b'\n', &mut line).with_context(cannot)? > 0 {
        std::io::stdout().write_all(&line).with_context(cannot)?;
        read(&String::from_utf8_lossy(&line));
        line.clear();
    }
    let status = child.wait().with_context(cannot)?;
    if !status.success() {
        bail!("{name} exited with {status}");
    }
    Ok(())
}

/// Runs a program to its end and returns its stdout.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot run {}", name(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} exited with {}: {}", name(command), output.status, stderr.trim());
    }
    Ok(output.stdout)
}

/// Returns cargo's target directory.
pub(crate) fn target(root: &Path) -> Result<PathBuf> {
    let arguments = ["metadata", "--locked", "--no-deps", "--format-version=1"];
    let metadata: serde_json::Value =
        serde_json::from_slice(&output(&mut cargo(root, &arguments))?)?;
    let target = metadata["target_directory"].as_str();
    Ok(PathBuf::from(target.context("cargo metadata names no target directory")?))
}

/// Compiles `dfs` in release mode, and returns its path.
pub(crate) fn release_dfs(root: &Path) -> Result<PathBuf> {
    run(&mut cargo(root, &["build", "--locked", "--release", "--bin=dfs"]))?;
    Ok(target(root)?.join("release/dfs"))
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

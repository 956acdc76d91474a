//! Checks of the source tree.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::output;

/// Number of lines above which a source file is reported.
const LINES_MAX: usize = 700;

/// Returns git's view of the tree: equal if nothing changed. Empty outside a repository.
pub(super) fn state(root: &Path) -> Result<Vec<u8>> {
    if !root.join(".git").exists() {
        return Ok(Vec::new());
    }
    let mut state = git(root, &["status", "--porcelain", "--untracked-files=all"])?;
    state.extend(git(root, &["diff", "--no-ext-diff", "--binary", "HEAD"])?);
    Ok(state)
}

/// Returns the paths of all files known to git, relative to the root of the tree.
pub(super) fn files(root: &Path) -> Result<Vec<String>> {
    let listed = git(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    let listed = String::from_utf8(listed).context("a path is not UTF-8")?;
    let listed = listed.split_terminator('\0').filter(|file| root.join(file).exists());
    Ok(listed.map(str::to_owned).collect())
}

/// Reports long source files. Not a failure: there may be good reasons.
pub(super) fn check_lengths(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for directory in ["crates", "xtask"] {
        visit(&root.join(directory), &mut files)?;
    }
    files.sort();
    for (path, lines) in files.iter().filter(|(_, lines)| *lines > LINES_MAX) {
        println!("verify: {path} has {lines} lines; is there a second type hidden in it?");
    }
    Ok(())
}

fn visit(directory: &Path, files: &mut Vec<(String, usize)>) -> Result<()> {
    let shown = directory.display();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {shown}"))? {
        let path = entry?.path();
        if path.is_dir() {
            // Not read by people.
            if !path.ends_with("generated") && !path.ends_with("target") {
                visit(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            files.push((path.display().to_string(), text.lines().count()));
        }
    }
    Ok(())
}

fn git(root: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    output(Command::new("git").arg("-C").arg(root).args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        git(root, &["init", "--quiet"]).unwrap();
        write("a", "1");
        git(root, &["add", "a"]).unwrap();
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        git(root, &[&who[..], &["commit", "--quiet", "--message=a"]].concat()).unwrap();

        let mut seen = vec![state(root).unwrap()];
        // A changed file, another change of it, a new file, a deleted file.
        for (name, text) in [("a", "2"), ("a", "3"), ("b", "1")] {
            write(name, text);
            seen.push(state(root).unwrap());
        }
        fs::remove_file(root.join("a")).unwrap();
        seen.push(state(root).unwrap());
        assert_eq!(seen.last(), Some(&state(root).unwrap()));
        for (i, a) in seen.iter().enumerate() {
            assert!(seen[i + 1..].iter().all(|b| a != b), "change {i}");
        }
    }
}

//! The table "Where is …?" of ARCHITECTURE.md names files that exist.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const PAGE: &str = "ARCHITECTURE.md";

pub(super) fn check(root: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    let (_, table) = page.split_once("## Where is").context("the table is missing")?;
    let named: Vec<String> = table.split('`').skip(1).step_by(2).flat_map(expand).collect();
    let exists = |name: &&String| {
        let paths = [format!("crates/{name}"), format!("crates/{name}.rs"), (*name).clone()];
        name.contains('*') || paths.iter().any(|path| root.join(path).exists())
    };
    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).cloned().collect();
    if named.is_empty() || !missing.is_empty() {
        bail!("{PAGE} names files that do not exist: {}", missing.join(", "));
    }
    Ok(())
}

/// Expands one list of alternatives in braces, as a shell does.
fn expand(name: &str) -> Vec<String> {
    let braces = name.split_once('{').and_then(|(before, rest)| {
        let (inner, after) = rest.split_once('}')?;
        Some(inner.split(',').map(|part| format!("{before}{part}{after}")).collect())
    });
    braces.unwrap_or_else(|| vec![name.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files_are_named() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("crates/a/src")).unwrap();
        fs::write(root.path().join("crates/a/src/b.rs"), "").unwrap();
        let check_page = |table: &str| {
            fs::write(root.path().join(PAGE), format!("## Where is …?\n{table}")).unwrap();
            check(root.path()).map_err(|error| error.to_string())
        };
        assert_eq!(check_page("| b | `a/src/{b,b.rs}`, `a/src` |"), Ok(()));
        assert!(check_page("| b | `a/src/{b,c}` |").unwrap_err().ends_with(": a/src/c"));
        assert!(check_page("no table").is_err());
    }
}

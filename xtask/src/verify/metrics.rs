//! docs/metrics.md lists the metrics of all processes, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const PAGE: &str = "docs/metrics.md";
/// Crates whose processes have metrics of their own.
const CRATES: &[&str] = &["dfs-coordinator", "dfs-datanode", "dfs-operator"];
const PREFIXES: &[&str] = &["dfs_coordinator_", "dfs_datanode_", "dfs_operator_", "dfs_cluster_"];

pub(super) fn check(root: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    let listed = names(&page, '`');
    let mut defined = BTreeSet::new();
    for name in CRATES {
        collect(&root.join("crates").join(name).join("src"), &mut defined)?;
    }
    let unlisted: Vec<_> = defined.difference(&listed).cloned().collect();
    let unknown: Vec<_> = listed.difference(&defined).cloned().collect();
    if defined.is_empty() || !unlisted.is_empty() || !unknown.is_empty() {
        bail!("{PAGE} lacks {unlisted:?}, and lists {unknown:?}, which no process has");
    }
    Ok(())
}

/// Adds the names in the sources of a directory.
fn collect(directory: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path);
            found.extend(names(&source.with_context(|| path.display().to_string())?, '"'));
        }
    }
    Ok(())
}

/// Returns the names of metrics that are quoted whole.
fn names(text: &str, quote: char) -> BTreeSet<String> {
    let is_name = |text: &&str| {
        PREFIXES.iter().any(|prefix| text.starts_with(prefix))
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    text.split(quote).filter(is_name).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_missing_from_the_page_is_named() {
        let root = tempfile::tempdir().unwrap();
        for name in CRATES {
            fs::create_dir_all(root.path().join(format!("crates/{name}/src/deep"))).unwrap();
        }
        fs::create_dir(root.path().join("docs")).unwrap();
        let source = root.path().join("crates/dfs-datanode/src/deep/metrics.rs");
        fs::write(source, r#"counter("dfs_datanode_a_total", "dfs_datanode_a is not one")"#)
            .unwrap();
        let check_page = |text: &str| {
            fs::write(root.path().join(PAGE), text).unwrap();
            check(root.path()).map_err(|error| error.to_string())
        };
        assert_eq!(check_page("| `dfs_datanode_a_total` | counter |"), Ok(()));
        assert!(check_page("").unwrap_err().contains(r#"lacks ["dfs_datanode_a_total"]"#));
        let both = check_page("`dfs_datanode_a_total` `dfs_datanode_b`").unwrap_err();
        assert!(both.contains(r#"lists ["dfs_datanode_b"]"#), "{both}");
    }
}

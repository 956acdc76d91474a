//! External crates: none may be banned or have a licence that is not allowed. Reads the lists in
//! `deny.toml`, so that cargo-deny gives the same result.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{cargo, output};

pub(super) fn check(root: &Path) -> Result<()> {
    let rules = fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let banned = list(&rules, "bans", "deny").context("deny.toml has no list of bans")?;
    let allowed = list(&rules, "licenses", "allow").context("deny.toml allows no licence")?;
    // Not Cargo.lock, which also contains crates of disabled features.
    let arguments = ["tree", "--locked", "--workspace", "--prefix=none", "--format={p}"];
    let tree = String::from_utf8(output(&mut cargo(root, &arguments))?)?;
    let used: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut faults: Vec<String> = banned
        .iter()
        .filter(|name| used.contains(name.as_str()))
        .map(|name| format!("{name} is banned: cargo tree --invert {name} shows its dependents"))
        .collect();
    // Only for this platform: crates of others may be missing.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    let arguments = ["metadata", "--locked", "--format-version=1", &platform];
    let metadata: Value = serde_json::from_slice(&output(&mut cargo(root, &arguments))?)?;
    for package in
        metadata["packages"].as_array().context("cargo metadata has an unexpected format")?
    {
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence, &allowed) {
            let name = package["name"].as_str().unwrap_or_default();
            faults.push(format!("{name} has the licence {licence:?}, which is not allowed"));
        }
    }
    if !faults.is_empty() {
        bail!("deny.toml forbids:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// Returns the strings of the list `key = [...]` in the section `[section]`. Parses only the subset
/// of TOML in that file: comments take a whole line, strings have no escapes.
fn list(toml: &str, section: &str, key: &str) -> Option<BTreeSet<String>> {
    let lines = toml.lines().map(str::trim).skip_while(|line| *line != format!("[{section}]"));
    let body: Vec<&str> = lines
        .skip(1)
        .take_while(|line| !line.starts_with('[') || line.contains('='))
        .filter(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with(&format!("{key} = [")))
        .collect();
    let text = body.join("\n");
    let (strings, _) = text.split_once('[')?.1.split_once(']')?;
    Some(strings.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Returns true if an SPDX expression can be satisfied with the allowed licences.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let is_allowed = any(&mut words, allowed);
    is_allowed && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut result = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        result |= all(words, allowed);
    }
    result
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut result = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed);
    }
    result
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let result = any(words, allowed);
        return words.next_if_eq(&")").is_some() && result;
    }
    let Some(name) = words.next() else { return false };
    let name = match words.next_if_eq(&"WITH").and_then(|_| words.next()) {
        Some(exception) => format!("{name} WITH {exception}"),
        None => name.to_owned(),
    };
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed() {
        let toml = "[licenses]\nallow = [\"A\", \"B\"]\n\n[bans]\nother = []\ndeny = [\n    # why \"x\"\n    \"ring\",\n    \"y\",\n]\n";
        let strings = |section, key| list(toml, section, key).map(Vec::from_iter);
        assert_eq!(strings("licenses", "allow"), Some(vec!["A".to_owned(), "B".to_owned()]));
        assert_eq!(strings("bans", "deny"), Some(vec!["ring".to_owned(), "y".to_owned()]));
        assert_eq!(strings("licenses", "deny"), None);
        assert_eq!(strings("nowhere", "deny"), None);
    }

    #[test]
    fn licence_expressions_are_evaluated() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]
            .map(str::to_owned)
            .into();
        for good in [
            "MIT",
            "MIT/GPL-3.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT WITH exception", "(MIT", "MIT MIT"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }
}

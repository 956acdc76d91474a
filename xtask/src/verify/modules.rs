//! Import cycles between the top-level modules of a crate, which neither cargo nor rustc rejects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::tree;

/// Modules, each with those it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Returns each cycle of each crate as a line. Tests do not count.
pub(super) fn cycles(root: &Path) -> Result<Vec<String>> {
    let mut crates: BTreeMap<String, Imports> = BTreeMap::new();
    for file in tree::files(root)? {
        let Some((name, module)) = module_of(&file) else { continue };
        let text = fs::read_to_string(root.join(&file)).with_context(|| file.clone())?;
        let imports = crates.entry(name.to_owned()).or_default();
        imports.entry(module.to_owned()).or_default().extend(imported(&text));
    }
    let found = crates.iter().flat_map(|(name, imports)| {
        rings(imports).into_iter().map(move |ring| {
            let modules: Vec<_> = ring.into_iter().collect();
            format!("{name}: the modules {} import each other in a ring", modules.join(", "))
        })
    });
    Ok(found.collect())
}

/// Returns the crate and the top-level module of a source file.
fn module_of(file: &str) -> Option<(&str, &str)> {
    let (name, path) = file.strip_prefix("crates/")?.split_once("/src/")?;
    let path = path.strip_suffix(".rs")?;
    let module = path.split('/').next()?;
    let is_test = path.split('/').any(|part| part == "tests");
    (!is_test && !matches!(module, "lib" | "main" | "generated")).then_some((name, module))
}

/// Returns the first names of all paths below `crate::` outside tests and comments.
fn imported(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            None => names.extend(first_name(path)),
            Some(list) => names.extend(items(list).into_iter().filter_map(first_name)),
        }
    }
    names
}

/// Returns the items of a list up to its closing brace.
fn items(list: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn first_name(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let name = &path[..end.unwrap_or(path.len())];
    (!name.is_empty()).then(|| name.to_owned())
}

/// Returns the sets of modules that reach each other.
fn rings(imports: &Imports) -> BTreeSet<BTreeSet<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|module| (module.as_str(), reachable(imports, module))).collect();
    let ring_of = |module: &str| -> BTreeSet<&str> {
        let others = reached[module].iter().copied();
        others.filter(|other| reached[other].contains(module)).collect()
    };
    imports.keys().map(|module| ring_of(module)).filter(|ring| ring.len() > 1).collect()
}

fn reachable<'a>(imports: &'a Imports, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        for import in &imports[module] {
            if let Some((import, _)) = imports.get_key_value(import)
                && import != module
                && found.insert(import.as_str())
            {
                next.push(import);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_found_outside_of_tests_and_comments() {
        let text = "\
use crate::one::{A, B};
use crate::{
    two::{C, three::D}, four, Five,
};
/// [`crate::six`]
fn f() { crate::seven::g() }
#[cfg(test)]
mod tests {
    use crate::eight::H;
}
";
        let names = ["Five", "four", "one", "seven", "two"].map(str::to_owned);
        assert_eq!(imported(text), BTreeSet::from(names));
        assert_eq!(module_of("crates/a/src/b/c.rs"), Some(("a", "b")));
        assert_eq!(module_of("crates/a/src/b/tests/c.rs"), None);
        assert_eq!(module_of("crates/a/src/lib.rs"), None);
    }

    #[test]
    fn rings_are_found_whatever_their_length() {
        let of = |edges: &[(&str, &[&str])]| -> Imports {
            let names = |all: &&[&str]| all.iter().map(|name| (*name).to_owned()).collect();
            edges.iter().map(|(from, to)| ((*from).to_owned(), names(to))).collect()
        };
        let chain = of(&[("a", &["b", "c"]), ("b", &["c", "b"]), ("c", &[]), ("d", &["a"])]);
        assert!(rings(&chain).is_empty());
        let ring = of(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["a"])]);
        assert_eq!(rings(&ring), BTreeSet::from([BTreeSet::from(["a", "b", "c"])]));
    }
}

//! Pages for people, checked against the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Each convention has one line, which names existing tests, or says why there are none.
#[test]
fn c72_pages_name_existing_tests() {
    let page = read("docs/kubernetes.md");
    let rows: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| C")?.strip_suffix(" |")?.split_once(" | "))
        .filter(|(what, _)| what.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    let numbers: Vec<&str> = rows.iter().map(|(what, _)| &what[..2]).collect();
    let wanted: Vec<String> = (1..=72).map(|number| format!("{number:02}")).collect();
    assert_eq!(numbers, wanted);
    for (what, shown) in rows {
        assert!(!shown.trim().is_empty(), "C{what}");
        for name in shown.split('`').skip(1).step_by(2) {
            if let Some((file, test)) = name.split_once("::") {
                assert!(
                    read(file).contains(&format!("fn {test}()")),
                    "C{what}: no {test} in {file}"
                );
            } else if let Some(step) = name.strip_prefix("cargo xtask verify ") {
                let steps = read("xtask/src/verify.rs");
                assert!(steps.contains(&format!("name: \"{step}\"")), "C{what}: no step {step}");
            }
        }
    }
}

/// Annotations are defined only here.
#[test]
fn c42_all_annotations_are_on_the_page() {
    let page = read("docs/kubernetes-conditions.md");
    let mut files = Vec::new();
    for folder in ["crates/dfs-crd/src", "crates/dfs-operator/src"] {
        visit(&root().join(folder), &mut files);
    }
    let mut found = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for name in text.split('"').filter(|word| word.starts_with("dfs.io/")) {
            let is_other = ["dfs.io/v1alpha1", dfs_crd::FINALIZER].contains(&name);
            found += usize::from(!is_other);
            assert!(
                is_other || page.contains(&format!("`{name}`")),
                "{name} in {}",
                file.display()
            );
        }
    }
    assert!(found >= 5, "{found} annotations");
}

fn visit(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, files);
        } else {
            files.push(path);
        }
    }
}

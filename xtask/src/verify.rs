//! All checks, fastest to fail first. They never change the tree.

mod edges;
mod map;
mod metrics;
mod modules;
mod packages;
mod supply;
mod tree;
mod vocabulary;
mod workflows;

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::chart;
use crate::generate;
use crate::process::{cargo, run as run_command, run_reading};

pub(crate) const USAGE: &str = "[STEP]... (checks everything, or these steps; changes nothing)";

/// A check.
struct Step {
    name: &'static str,
    /// Command that runs only this check.
    again: &'static str,
    check: fn(&Path) -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "packages", again: "cargo xtask verify packages", check: packages::check },
    Step { name: "fmt", again: "cargo fmt --all --check", check: fmt },
    Step { name: "generated", again: "cargo xtask verify generated", check: generate::check },
    Step { name: "chart", again: "cargo xtask verify chart", check: chart::lint },
    Step { name: "workflows", again: "cargo xtask verify workflows", check: workflows::check },
    Step { name: "edges", again: "cargo xtask verify edges", check: edges::check },
    Step { name: "map", again: "cargo xtask verify map", check: map::check },
    Step { name: "metrics", again: "cargo xtask verify metrics", check: metrics::check },
    Step { name: "supply", again: "cargo xtask verify supply", check: supply::check },
    Step { name: "vocabulary", again: "cargo xtask verify vocabulary", check: vocabulary::check },
    Step { name: "lengths", again: "cargo xtask verify lengths", check: tree::check_lengths },
    Step { name: "clippy", again: "cargo clippy --workspace --all-targets", check: clippy },
    Step { name: "doc", again: "cargo xtask verify doc", check: doc },
    Step { name: "test", again: "cargo test --workspace", check: test },
    Step { name: "etcd", again: "cargo xtask verify etcd", check: etcd },
];

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    if let Some(unknown) = arguments.iter().find(|name| STEPS.iter().all(|s| s.name != **name)) {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("{unknown:?} is not a step; expected one of {}", names.join(", "));
    }
    let start = Instant::now();
    let before = tree::state(root)?;
    let wanted = |step: &&Step| arguments.is_empty() || arguments.iter().any(|a| a == step.name);
    for step in STEPS.iter().filter(wanted) {
        println!("verify: {}", step.name);
        let start = Instant::now();
        let result = (step.check)(root);
        let seconds = start.elapsed().as_secs_f64();
        let Step { name, again, .. } = step;
        result.with_context(|| {
            format!("verify: {name} failed after {seconds:.1} s (to repeat it: {again})")
        })?;
        println!("verify: {} passed in {seconds:.1} s", step.name);
    }
    if tree::state(root)? != before {
        bail!("the tree changed meanwhile: see git status");
    }
    println!("verify: passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn fmt(root: &Path) -> Result<()> {
    run_command(&mut cargo(root, &["fmt", "--all", "--check"]))
}

fn clippy(root: &Path) -> Result<()> {
    // With the end-to-end tests, which are compiled only with this feature.
    let what = ["clippy", "--locked", "--workspace", "--all-targets", "--features=dfs-e2e/cluster"];
    run_command(cargo(root, &what).args(["--", "-D", "warnings"]))
}

fn doc(root: &Path) -> Result<()> {
    // With the examples, so that cargo uses the same features as for clippy and the tests, and need
    // not check all dependencies again. Libraries only, as the operator's binary has the same name
    // as its library, and thus the same page.
    let what = ["doc", "--locked", "--workspace", "--no-deps", "--lib", "--examples"];
    run_command(
        cargo(root, &what)
            .args(["--bin=dfs", "--bin=dfs-e2e-client", "--bin=xtask"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Unit, integration and doc tests. Not the examples, which would be linked for nothing: clippy has
/// checked them.
fn test(root: &Path) -> Result<()> {
    let test = ["test", "--locked", "--workspace", "--no-fail-fast"];
    let mut tests = cargo(root, &test);
    let mut examples = cargo(root, &test);
    run_tests([tests.arg("--tests").env("RUST_TEST_THREADS", threads()), examples.arg("--doc")])
}

/// Runs all of these commands of `cargo test`. The error names the tests that failed.
fn run_tests<const N: usize>(commands: [&mut Command; N]) -> Result<()> {
    let (mut failed, mut errors) = (Vec::new(), Vec::new());
    for command in commands {
        let note = |line: &str| failed.extend(failed_test(line).map(str::to_owned));
        errors.extend(run_reading(command, note).err().map(|error| format!("{error:#}")));
    }
    if errors.is_empty() {
        return Ok(());
    }
    errors.extend(failed.iter().map(|test| format!("  failed: {test}")));
    bail!("{}", errors.join("\n"))
}

/// Returns the name of a test that failed, if a line of output says so.
fn failed_test(line: &str) -> Option<&str> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    result.contains("FAILED").then_some(name)
}

/// Returns the number of tests that run at a time: most of those that take long wait, for elections,
/// timeouts and processes, so that two keep a processor busy.
fn threads() -> String {
    (2 * thread::available_parallelism().map_or(1, usize::from)).to_string()
}

/// Runs those process tests that depend on the metadata again, with etcd and fewer kills.
fn etcd(root: &Path) -> Result<()> {
    run_tests([cargo(root, &["test", "--locked", "--workspace", "--test=processes", "--"])
        .args(["commands", "kills", "semantics", "servers"])
        .args(["--skip=s23"])
        .envs([("DFS_TEST_METADATA", "etcd"), ("DFS_KILLS", "4")])
        .env("RUST_TEST_THREADS", threads())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_named() {
        for (line, name) in [
            ("test a::one ... ok\n", None),
            ("test a::two ... FAILED\n", Some("a::two")),
            (
                "test a::three - should panic ... \x1b[31mFAILED\x1b[0m\n",
                Some("a::three - should panic"),
            ),
            ("test result: FAILED. 1 passed; 1 failed\n", None),
            ("    a::two\n", None),
        ] {
            assert_eq!(failed_test(line), name, "{line}");
        }
    }

    #[test]
    fn all_commands_run_and_the_errors_of_all_are_kept() {
        let [mut first, mut second] = ["exit 3", "exit 4"].map(|script| {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]);
            shell
        });
        let error = run_tests([&mut first, &mut second]).unwrap_err().to_string();
        assert!(error.contains("status: 3") && error.contains("status: 4"), "{error}");
        run_tests([&mut Command::new("true")]).unwrap();
    }
}

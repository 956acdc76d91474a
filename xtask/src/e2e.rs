//! End-to-end tests on Kubernetes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::images::{self, Versions};
use crate::process::{cargo, output, run as run_command};

pub(crate) const USAGE: &str = "(--cluster PROGRAM | --context NAME) [--case E01]... [--core] \
    [--keep] (end-to-end tests in a Kubernetes that is named; with a program that has power over \
    nodes it is brought up and gets fresh images)";

/// Cases that check the basics within a few minutes.
const CORE: [&str; 9] = ["E01", "E04", "E05", "E06", "E07", "E29", "E36", "E38", "M02"];

/// Parsed options.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    cluster: Option<PathBuf>,
    context: Option<String>,
    cases: Vec<String>,
    is_core: bool,
    is_kept: bool,
}

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    // With the whole workspace, as the dependencies shared with its other tests are already
    // compiled then.
    let mut tests = cargo(root, &["test", "--locked", "--workspace"]);
    tests.args(["--features", "dfs-e2e/cluster", "--test", "cases"]);
    match (&options.cluster, &options.context) {
        (Some(program), None) => {
            run_command(Command::new(program).arg("up"))?;
            let versions = if options.is_core { Versions::This } else { Versions::AndNext };
            images::load(root, program, versions)?;
            let kubeconfig = line(program, "kubeconfig")?;
            let path = env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(PathBuf::from(line(program, "bin")?));
            tests.env("PATH", env::join_paths(folders.chain(env::split_paths(&path)))?);
            tests.env("DFS_E2E_CONTEXT", context_of(&kubeconfig)?);
            tests.env("DFS_E2E_CLUSTER", program).env("KUBECONFIG", kubeconfig);
        }
        (None, Some(context)) => {
            tests.env("DFS_E2E_CONTEXT", context);
        }
        _ => bail!("name the Kubernetes cluster to test on: cargo xtask e2e {USAGE}"),
    }
    tests.env("DFS_E2E_DFS", images::command_line(root)?);
    if options.is_kept {
        tests.env("DFS_E2E_KEEP", "true");
    }
    // Cases take nodes down, which would disturb others.
    tests.args(["--", "--test-threads=1"]);
    let core = CORE.iter().map(|case| (*case).to_owned());
    let cases: Vec<String> = if options.is_core { core.collect() } else { options.cases.clone() };
    for case in &cases {
        // Otherwise E1 would match E10, E11 and so on.
        tests.arg(format!("{}_", case.to_lowercase()));
    }
    run_command(&mut tests)
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().with_context(|| format!("{argument} takes a value")).cloned();
            match argument.as_str() {
                // Relative to the current directory, not to that of the tests.
                "--cluster" => options.cluster = Some(std::path::absolute(value()?)?),
                "--context" => options.context = Some(value()?),
                "--case" => options.cases.push(value()?),
                "--core" => options.is_core = true,
                "--keep" => options.is_kept = true,
                other => bail!("{other:?} is not an option: cargo xtask e2e {USAGE}"),
            }
        }
        Ok(options)
    }
}

/// Returns what the program prints about its cluster.
fn line(program: &Path, question: &str) -> Result<String> {
    Ok(String::from_utf8(output(Command::new(program).arg(question))?)?.trim().to_owned())
}

fn context_of(kubeconfig: &str) -> Result<String> {
    let arguments = ["--kubeconfig", kubeconfig, "config", "current-context"];
    Ok(String::from_utf8(output(Command::new("kubectl").args(arguments))?)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_parsed_or_refused() {
        let expected = Options {
            context: Some("kind-dfs".to_owned()),
            cases: vec!["E01".to_owned(), "E36".to_owned()],
            is_kept: true,
            ..Options::default()
        };
        assert_eq!(parse("--context kind-dfs --case E01 --case E36 --keep").unwrap(), expected);
        assert!(parse("--case").is_err());
        assert!(parse("E01").is_err());
        assert!(parse("--cluster ../cluster").unwrap().cluster.unwrap().is_absolute());
    }
}

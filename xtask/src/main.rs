//! Development tasks, each a verb: `cargo xtask VERB`. Needs only cargo.

mod bench;
mod chart;
mod drill;
mod e2e;
mod faults;
mod fix;
mod generate;
mod go;
mod images;
mod large;
mod process;
mod release;
mod sim;
mod verify;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

/// A verb of `cargo xtask`.
struct Verb {
    name: &'static str,
    usage: &'static str,
    /// Receives the root of the repository and the arguments after the verb.
    run: fn(&Path, &[String]) -> Result<()>,
}

const VERBS: &[Verb] = &[
    Verb { name: "verify", usage: verify::USAGE, run: verify::run },
    Verb { name: "fix", usage: fix::USAGE, run: fix::run },
    Verb { name: "bench", usage: bench::USAGE, run: bench::run },
    Verb { name: "generate", usage: generate::USAGE, run: generate::run },
    Verb { name: "large", usage: large::USAGE, run: large::run },
    Verb { name: "release", usage: release::USAGE, run: release::run },
    Verb { name: "drill", usage: drill::USAGE, run: drill::run },
    Verb { name: "powercut", usage: drill::POWERCUT_USAGE, run: drill::powercut },
    Verb { name: "e2e", usage: e2e::USAGE, run: e2e::run },
    Verb { name: "images", usage: images::USAGE, run: images::run },
    Verb { name: "faults", usage: faults::USAGE, run: faults::run },
    Verb { name: "sim", usage: sim::USAGE, run: sim::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let (name, rest) = arguments.split_first().map_or(("", arguments), |(n, r)| (n.as_str(), r));
    if let Some(verb) = VERBS.iter().find(|verb| verb.name == name) {
        return (verb.run)(&root(), rest);
    }
    let usages: Vec<String> =
        VERBS.iter().map(|verb| format!("  cargo xtask {} {}", verb.name, verb.usage)).collect();
    bail!("{name:?} is not a verb; expected one of\n{}", usages.join("\n"))
}

/// Returns the root of the repository.
fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

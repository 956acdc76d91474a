//! Rehearses a large failure and measures it: `cargo xtask drill repair`, `cargo xtask drill gc`, `cargo
//! xtask powercut`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dfs_testkit::drills::{gc, powercut, repair};
use dfs_testkit::process::PowerDisk;

const USAGE: &str = "usage: drill DFS (repair [--small N] [--large N] [--changes N] | gc [--orphans N] [--minutes M] | powercut [--rounds N] [--seed N])";

/// Time for which users are watched before a loss.
const QUIET: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match drill(&arguments) {
        None => {
            println!("{USAGE}");
            ExitCode::from(2)
        }
        Some(Ok(report)) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Some(Err(violation)) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

/// Returns `None` if the arguments are wrong.
fn drill(arguments: &[String]) -> Option<Result<String, String>> {
    let [binary, name, flags @ ..] = arguments else { return None };
    let binary = PathBuf::from(binary);
    match name.as_str() {
        "repair" => {
            let known = [("--small", 20_000.0), ("--large", 20.0), ("--changes", 10.0)];
            let [small, large, changes] = values(flags, known)?.map(|value| value as usize);
            let options = repair::Options { binary, small, large, changes, quiet: QUIET };
            Some(repair::run(&options).map(|report| report.to_string()))
        }
        "gc" => {
            let [orphans, minutes] = values(flags, [("--orphans", 9_999.0), ("--minutes", 10.0)])?;
            let time = Duration::try_from_secs_f64(minutes * 60.0).ok()?;
            let options = gc::Options { binary, orphans: orphans as usize, time };
            Some(gc::run(&options).map(|report| report.to_string()))
        }
        "powercut" => {
            let [rounds, seed] = values(flags, [("--rounds", 100.0), ("--seed", 1.0)])?;
            let options = powercut::Options { binary, rounds: rounds as usize, seed: seed as u64 };
            let disks = (0..powercut::MACHINES).map(|_| PowerDisk::new()).collect::<Result<_, _>>();
            let report = disks.and_then(|disks| powercut::run(&options, disks));
            Some(report.map(|report| report.to_string()))
        }
        _ => None,
    }
}

/// Returns the values of these flags, or their defaults.
fn values<const N: usize>(flags: &[String], known: [(&str, f64); N]) -> Option<[f64; N]> {
    let mut values = known.map(|(_, default)| default);
    for flag in flags.chunks(2) {
        let [name, value] = flag else { return None };
        let index = known.iter().position(|(known, _)| known == name)?;
        values[index] = value.parse().ok().filter(|value| *value >= 0.0)?;
    }
    Some(values)
}

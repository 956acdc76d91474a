//! Kills, stops and cuts off coordinators and members of etcd under load, and checks all replies to
//! clients: `cargo xtask faults --minutes 30 --seed 7`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dfs_testkit::faults::{Options, run};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = parse(&arguments) else {
        println!("usage: faults DFS [--minutes M] [--seed N] [--fault NAME]");
        return ExitCode::from(2);
    };
    println!("seed {}, for {:?}", options.seed, options.time);
    match run(&options) {
        Ok(report) => {
            println!("{report}\nno violation was found");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}\nseed {} failed", options.seed);
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<Options> {
    let (binary, flags) = arguments.split_first()?;
    let (mut minutes, mut seed, mut fault) = (2.0, 1, String::new());
    for flag in flags.chunks(2) {
        let [name, value] = flag else { return None };
        match name.as_str() {
            "--minutes" => minutes = value.parse().ok().filter(|minutes| *minutes > 0.0)?,
            "--fault" => fault.clone_from(value),
            "--seed" => seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(Options {
        binary: PathBuf::from(binary),
        seed,
        fault,
        time: Duration::try_from_secs_f64(minutes * 60.0).ok()?,
        keep: std::env::temp_dir().join(format!("dfs-faults-{seed}")),
    })
}

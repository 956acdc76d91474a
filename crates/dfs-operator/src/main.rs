//! The operator of dfs.

use std::process::ExitCode;

use clap::Parser as _;
use dfs_operator::args::Args;

fn main() -> ExitCode {
    Args::parse().run()
}

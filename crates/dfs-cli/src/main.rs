//! `dfs`: the command line and the roles of the file system.

use std::process::ExitCode;

fn main() -> ExitCode {
    dfs_cli::run(std::env::args_os())
}

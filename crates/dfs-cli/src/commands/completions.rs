//! `dfs completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::output::Output;

/// What `dfs completions` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs completions bash > /etc/bash_completion.d/dfs
  dfs completions zsh > ~/.zfunc/_dfs")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, out: Output) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dfs", &mut script);
    out.bytes(&script);
}

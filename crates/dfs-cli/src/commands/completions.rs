//! `dfs completions`.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::output::Output;

/// Arguments of `dfs completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs completions bash > /etc/bash_completion.d/dfs
  dfs completions zsh > ~/.zfunc/_dfs")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, mut command: Command, out: Output) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "dfs", &mut script);
    out.bytes(&script);
}

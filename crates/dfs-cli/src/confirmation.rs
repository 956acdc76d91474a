//! Consent to dangerous acts.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;
use dfs_types::ErrorCode;

use crate::context::Context;
use crate::error::{Error, Result, blocking};

/// Consent of the user, given on the command line or when asked.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Confirmation {
    /// Do not ask; required where no terminal can answer.
    #[arg(long, short)]
    yes: bool,
}

impl Confirmation {
    /// Returns whether [`Self::ask`] would ask.
    pub(crate) fn is_needed(self) -> bool {
        !self.yes
    }

    /// Asks whether to go ahead, unless the command line says so. Fails when the answer is no, or
    /// when nobody can answer.
    pub(crate) async fn ask(self, question: &str, cx: &Context) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if cx.out.is_json || !io::stdin().is_terminal() {
            return Err(Error::usage("nobody can be asked here, and nothing was changed")
                .hint("repeat the command with --yes"));
        }
        let prompt = format!("{question} [y/N] ");
        let answer = blocking(move || {
            let mut terminal = io::stderr().lock();
            write!(terminal, "{prompt}")?;
            terminal.flush()?;
            let mut answer = String::new();
            io::stdin().read_line(&mut answer)?;
            Ok::<_, io::Error>(answer)
        });
        let answer = answer.await?;
        let answer = answer.map_err(|error| Error::local("read from", "stdin".as_ref(), &error))?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Busy, "not confirmed; nothing was changed"))
    }
}

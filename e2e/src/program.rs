//! External programs, as run by users.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Default time limit of a program.
const LIMIT: Duration = Duration::from_mins(1);

/// A program to run to its end, with a time limit.
pub struct Program {
    command: Command,
    words: String,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

/// Result of a program.
#[derive(Debug)]
pub struct Ended {
    /// True if it exited with 0.
    pub is_success: bool,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Program {
    /// Returns a program, found in the PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let words = program.as_ref().to_string_lossy().into_owned();
        Self { command: Command::new(program), words, stdin: None, limit: LIMIT }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.words.push(' ');
        self.words.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(self, arguments: &[impl AsRef<OsStr>]) -> Self {
        arguments.iter().fold(self, Self::arg)
    }

    /// Sets its stdin.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Sets a time limit other than a minute.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it and returns its stdout; an error if it fails.
    pub async fn run(self) -> Result<String> {
        let words = self.words.clone();
        let ended = self.end().await?;
        if !ended.is_success {
            bail!("{words}: {} {}", ended.stdout.trim(), ended.stderr.trim());
        }
        Ok(ended.stdout)
    }

    /// Runs it and returns its result, even if it fails.
    pub async fn end(mut self) -> Result<Ended> {
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child =
            self.command.spawn().with_context(|| format!("cannot run {}", self.words))?;
        let (stdin, text) = (child.stdin.take(), self.stdin.take());
        let feed = async move {
            if let (Some(mut stdin), Some(text)) = (stdin, text) {
                stdin.write_all(&text).await?;
            }
            anyhow::Ok(())
        };
        let both = async { tokio::join!(feed, child.wait_with_output()) };
        let (_, output) = tokio::time::timeout(self.limit, both)
            .await
            .with_context(|| format!("{} took more than {:?}", self.words, self.limit))?;
        let output = output?;
        Ok(Ended {
            is_success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

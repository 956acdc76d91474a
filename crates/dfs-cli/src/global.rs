//! Options that every command takes.

use clap::Args;

/// Heading of the options that every command takes; a command's own options stand above it.
pub(crate) const HEADING: &str = "Global options";

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct Global {
    /// Where a coordinator is reached; several, with commas or by repeating, are tried in turn.
    /// <http://127.0.0.1:7070> when not set.
    #[arg(long, global = true, env = "DFS_COORDINATOR", value_delimiter = ',', value_name = "URL")]
    pub(crate) coordinator: Vec<String>,
    #[cfg(feature = "kube")]
    #[command(flatten)]
    pub(crate) kube: crate::kube::KubeOptions,
    /// Write results as JSON, one document per line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter such as
    /// `warn,dfs_client=debug`. Commands log warnings, servers also what they do.
    #[arg(long, global = true, env = "DFS_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// How it is logged: text or json.
    #[arg(
        long,
        global = true,
        env = "DFS_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: String,
    /// Give up on a call after so many seconds of trying.
    #[arg(long, global = true, env = "DFS_TIMEOUT", value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

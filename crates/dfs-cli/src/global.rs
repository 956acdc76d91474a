//! Options of every command.

use std::time::Duration;

use clap::Args;

use crate::duration::duration;

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = crate::HEADING)]
pub(crate) struct Global {
    /// Address of a coordinator; several, separated by commas or repeated, are tried in turn.
    /// <http://127.0.0.1:7070> by default.
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
    /// Log level on stderr: error, warn, info, debug, trace, or a filter such as
    /// `warn,dfs_client=debug`. By default commands log warnings, and servers also their activity.
    #[arg(long, global = true, env = "DFS_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// Log format: text or json.
    #[arg(
        long,
        global = true,
        env = "DFS_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: String,
    /// Give up on a call after retrying for this long: a number with s, m, h or d.
    #[arg(long, global = true, env = "DFS_TIMEOUT", value_name = "TIME", default_value = "1m",
          value_parser = duration)]
    pub(crate) timeout: Duration,
}

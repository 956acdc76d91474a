//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use dfs_runtime::LogFormat;

use crate::FIELD_MANAGER;

/// Operator of DfsCluster resources.
#[derive(Debug, Parser)]
#[command(name = "dfs-operator", version, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Namespaces whose clusters are managed, separated by commas; all by default.
    #[arg(long, env = "WATCH_NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Name of this pod: the identity of the lease holder.
    #[arg(long, env = "POD_NAME", value_name = "NAME", required = true)]
    pub pod_name: Option<String>,
    /// Namespace of this pod, and of the lease.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", required = true)]
    pub pod_namespace: Option<String>,
    /// Name of the lease. Operators of different namespaces need different names.
    #[arg(long, env = "LEASE_NAME", value_name = "NAME", default_value = FIELD_MANAGER)]
    pub lease_name: String,
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:8080")]
    pub http_listen: String,
    /// Log format: json or text.
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// Log level, or a filter by module.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log_level: String,
}

/// Command to run instead of managing clusters.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the CustomResourceDefinition, for `kubectl apply -f -`.
    Crd,
    /// Apply the DfsCluster in a JSON file. The chart runs this after install.
    Apply {
        /// The file.
        file: PathBuf,
    },
    /// Fail while clusters exist. The chart runs this before uninstall.
    CheckUninstall,
}

impl Args {
    /// Returns the namespaces to watch, each once.
    pub fn namespaces(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.watch_namespaces.iter().map(|name| name.trim().to_owned()).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: [&str; 5] = ["dfs-operator", "--pod-name", "a", "--pod-namespace", "b"];

    #[test]
    fn namespaces_are_a_comma_separated_list() {
        for (given, names) in [("", &[] as &[&str]), ("b, a,,b", &["a", "b"])] {
            let args = Args::parse_from(POD.iter().chain(&["--watch-namespaces", given]));
            assert_eq!(args.namespaces(), names, "{given:?}");
        }
    }

    #[test]
    fn c49_logs_are_json_by_default() {
        let args = Args::parse_from(POD);
        assert_eq!((args.log_format, args.log_level.as_str()), (LogFormat::Json, "info"));
    }

    #[test]
    fn definition_needs_no_pod_and_unknown_arguments_are_refused() {
        assert!(Args::try_parse_from(["dfs-operator", "crd"]).is_ok());
        assert!(Args::try_parse_from(POD.iter().chain(&["--frobnicate"])).is_err());
        assert!(Args::try_parse_from(POD.iter().chain(&["--log-format", "xml"])).is_err());
    }
}

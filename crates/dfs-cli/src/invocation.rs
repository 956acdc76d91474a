//! A parsed command line: the command, and how to reach the cluster.

use std::ffi::OsString;

#[cfg(feature = "kube")]
use clap::{
    ArgMatches, CommandFactory as _, FromArgMatches as _, error::ErrorKind, parser::ValueSource,
};

use crate::args::Cli;
use crate::context::ClusterTarget;

/// A parsed command line.
pub(crate) struct Invocation {
    pub(crate) cli: Cli,
    pub(crate) target: ClusterTarget,
}

impl Invocation {
    /// Parses `args`, the first of which is the program name.
    #[cfg(not(feature = "kube"))]
    pub(crate) fn parse(args: &[OsString]) -> Result<Self, clap::Error> {
        let cli = <Cli as clap::Parser>::try_parse_from(args)?;
        Ok(Self { cli, target: ClusterTarget::Coordinators })
    }

    /// Parses `args`, the first of which is the program name.
    #[cfg(feature = "kube")]
    pub(crate) fn parse(args: &[OsString]) -> Result<Self, clap::Error> {
        if args.first().is_some_and(|name| crate::kube::is_plugin(name)) {
            return Self::of_plugin(args);
        }
        let matches = Cli::command().try_get_matches_from(args)?;
        let cli = Cli::from_arg_matches(&matches)?;
        let target = target(&cli, &matches).map_err(|message| wrong(&message))?;
        Ok(Self { cli, target })
    }

    /// Parses the command line of a kubectl plugin, where the cluster is in Kubernetes by default.
    #[cfg(feature = "kube")]
    fn of_plugin(args: &[OsString]) -> Result<Self, clap::Error> {
        use crate::kube::PluginOptions;

        let matches = plugin_command().try_get_matches_from(args)?;
        let cli = Cli::from_arg_matches(&matches)?;
        let plugin = PluginOptions::from_arg_matches(&matches)?;
        let has_named = plugin.names_any();
        if has_named && (is_typed(&matches, "kube") || is_typed(&matches, "coordinator")) {
            return Err(wrong(
                "--namespace and --cluster cannot be used with --kube or --coordinator",
            ));
        }
        let is_elsewhere = is_typed(&matches, "coordinator") || cli.global.kube.is_named();
        let target = if is_elsewhere && !has_named {
            target(&cli, &matches).map_err(|message| wrong(&message))?
        } else {
            ClusterTarget::Kube(plugin.into_target())
        };
        Ok(Self { cli, target })
    }
}

/// Returns the command line of the kubectl plugin, where `-n` is always the namespace.
#[cfg(feature = "kube")]
pub(crate) fn plugin_command() -> clap::Command {
    use clap::Args as _;

    let command = Cli::command().name("kubectl dfs").bin_name("kubectl dfs");
    let command = ["put", "get", "mv"].into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |one| one.mut_arg("no_clobber", |option| option.short(None)))
    });
    crate::kube::PluginOptions::augment_args(command)
}

/// Returns how to reach the cluster. Options override the environment.
#[cfg(feature = "kube")]
fn target(cli: &Cli, matches: &ArgMatches) -> Result<ClusterTarget, String> {
    let (kube, coordinator) = (is_typed(matches, "kube"), is_typed(matches, "coordinator"));
    if kube && cli.command.is_server() {
        return Err("--kube is only for commands that use a cluster, not for servers".to_owned());
    }
    if kube && coordinator {
        return Err("--kube and --coordinator each name a cluster: use one of them".to_owned());
    }
    if !kube && !coordinator && cli.global.kube.is_named() && !cli.global.coordinator.is_empty() {
        return Err("DFS_KUBE and DFS_COORDINATOR each name a cluster: unset one of them, or use \
                    --kube or --coordinator"
            .to_owned());
    }
    if coordinator {
        return Ok(ClusterTarget::Coordinators);
    }
    match cli.global.kube.target().map_err(|error| error.to_string())? {
        Some(target) => Ok(ClusterTarget::Kube(target)),
        None if is_typed(matches, "context") => {
            Err("--context requires --kube, which names a DfsCluster".to_owned())
        }
        None => Ok(ClusterTarget::Coordinators),
    }
}

#[cfg(feature = "kube")]
fn is_typed(matches: &ArgMatches, option: &str) -> bool {
    matches.value_source(option) == Some(ValueSource::CommandLine)
}

#[cfg(feature = "kube")]
fn wrong(message: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, message)
}

#[cfg(all(test, feature = "kube"))]
mod tests {
    use dfs_kube::Target;

    use super::*;

    fn parse(line: &str) -> Result<ClusterTarget, String> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Invocation::parse(&args).map(|found| found.target).map_err(|error| error.to_string())
    }

    fn kube(namespace: Option<&str>, name: Option<&str>) -> ClusterTarget {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        ClusterTarget::Kube(Target { namespace: owned(namespace), name: owned(name) })
    }

    #[test]
    fn cluster_is_named_by_coordinators_or_in_kubernetes() {
        assert_eq!(parse("dfs status"), Ok(ClusterTarget::Coordinators));
        assert_eq!(parse("dfs --kube files/demo status"), Ok(kube(Some("files"), Some("demo"))));
        assert_eq!(parse("dfs status --kube demo"), Ok(kube(None, Some("demo"))));
        assert_eq!(parse("dfs --coordinator http://a:1 ls /"), Ok(ClusterTarget::Coordinators));
        for (line, said) in [
            ("dfs --kube a/b --coordinator http://a:1 ls /", "use one of them"),
            ("dfs --context here ls /", "requires --kube"),
            ("dfs datanode --kube a/b", "not for servers"),
            ("dfs --kube A_b ls /", "NAMESPACE/NAME"),
            ("dfs -n files ls /", "-n"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn kubectl_plugin_uses_the_namespace_of_its_context() {
        assert_eq!(parse("kubectl-dfs status"), Ok(kube(None, None)));
        assert_eq!(parse("/opt/bin/kubectl-dfs -n files ls /"), Ok(kube(Some("files"), None)));
        let both = Ok(kube(Some("files"), Some("demo")));
        assert_eq!(parse("kubectl-dfs ls / --cluster demo --namespace files"), both);
        assert_eq!(parse("kubectl-dfs --kube files/demo ls /"), both);
        assert_eq!(parse("kubectl-dfs --context here ls /"), Ok(kube(None, None)));
        assert_eq!(
            parse("kubectl-dfs --coordinator http://a:1 ls /"),
            Ok(ClusterTarget::Coordinators)
        );
        assert_eq!(parse("kubectl-dfs mv -n files /a /b"), Ok(kube(Some("files"), None)));
        let error = parse("kubectl-dfs -n files --kube a/b ls /").unwrap_err();
        assert!(error.contains("cannot be used with"), "{error}");
        let help = parse("kubectl-dfs put --help").unwrap_err();
        assert!(help.contains("Usage: kubectl dfs put"), "{help}");
    }
}

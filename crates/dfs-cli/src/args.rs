//! The command line as typed.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::global::Global;

/// A distributed file system: fsynced replicas of every byte on several nodes.
#[derive(Debug, Parser)]
#[command(
    name = "dfs",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "\
Paths in dfs start with a slash. `dfs COMMAND --help` shows examples.

Exit codes: 0 success, 1 failure, 2 invalid usage or argument, 3 not found, 4 already exists or is
of the wrong kind, 5 try again later, 6 permission denied, 7 `dfs doctor` found something that needs
a person; 129, 130 and 143 after SIGHUP, SIGINT and SIGTERM, once uploads are aborted and temporary
files removed. A second signal exits at once."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy local files into dfs
    Put(commands::put::PutArgs),
    /// Copy files from dfs
    Get(commands::get::GetArgs),
    /// Write files to stdout
    Cat(commands::cat::CatArgs),
    /// List directories
    Ls(commands::ls::LsArgs),
    /// Show everything about a path
    Stat(commands::stat::StatArgs),
    /// Create directories
    Mkdir(commands::mkdir::MkdirArgs),
    /// Rename or move
    Mv(commands::mv::MvArgs),
    /// Create symbolic links
    Ln(commands::ln::LnArgs),
    /// Delete files and directories, restorable for a while
    Rm(commands::rm::RmArgs),
    /// Restore what was deleted or replaced
    Undelete(commands::undelete::UndeleteArgs),
    /// Set, read, list or remove extended attributes
    Xattr(commands::xattr::XattrArgs),
    /// Show the total size below paths
    Du(commands::du::DuArgs),
    /// Show the capacity of the cluster
    Df(commands::df::DfArgs),
    /// Print a directory tree
    Tree(commands::tree::TreeArgs),
    /// Show where the bytes of a file are stored, and problems with them
    Explain(commands::explain::ExplainArgs),
    /// Show the nodes, the health of the data and the background workers
    Status(commands::status::StatusArgs),
    /// Say what is wrong, why, what is done about it, and what you can do
    Doctor(commands::doctor::DoctorArgs),
    /// Admit and drain datanodes, put them into maintenance, or remove them
    Node(commands::node::NodeArgs),
    /// Set how many replicas files get, by default or below a directory
    SetReplication(commands::set_replication::SetReplicationArgs),
    /// Compare what the disks hold with the metadata, and name damaged files
    Fsck(commands::fsck::FsckArgs),
    /// Show whether anything is deleted, or permit it after a restore
    Gc(commands::gc::GcArgs),
    /// List the disks of datanodes, or empty one for removal
    Disk(commands::disk::DiskArgs),
    /// List, pause, resume and rate-limit background workers
    Worker(commands::worker::WorkerArgs),
    /// Show the write level of the cluster, or raise it after an upgrade
    Upgrade(commands::upgrade::UpgradeArgs),
    /// Measure creates, reads, stats, lists and streams
    Bench(commands::bench::BenchArgs),
    /// Print a completion script for a shell
    Completions(commands::completions::CompletionsArgs),
    /// Show versions
    Version(commands::version::VersionArgs),
    /// Run a small file system on this machine, or watch a tour of one
    Local(commands::local::LocalArgs),
    /// Run a coordinator, or initialise its metadata store
    Coordinator(commands::coordinator::CoordinatorArgs),
    /// Migrate a metadata store to another engine, or check one
    Metadata(commands::metadata::MetadataArgs),
    /// Run a datanode
    Datanode(commands::datanode::DatanodeArgs),
}

impl Command {
    /// Returns true if the command runs part of a cluster rather than using one.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Coordinator(_) | Self::Datanode(_))
    }

    /// Returns true if the command needs no client.
    #[cfg(feature = "kube")]
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Version(args) => args.is_local(),
            Self::Doctor(args) => args.is_local(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Returns true if a section of a help text lists an option.
    fn lists(section: &str, option: &str) -> bool {
        let lines = section.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        lines.flat_map(|line| line.split([' ', ',', '='])).any(|word| word == option)
    }

    fn check(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        let (own, below) = help
            .split_once("\nGlobal options:\n")
            .unwrap_or_else(|| panic!("{path} shows no global options:\n{help}"));
        let global = below.split("\nExamples:").next().unwrap_or_default();
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let Some(option) = arg.get_long().map(|long| format!("--{long}")) else { continue };
            let is_global = arg.is_global_set();
            assert_eq!(lists(own, &option), !is_global, "{path} {option}:\n{help}");
            assert_eq!(lists(global, &option), is_global, "{path} {option}:\n{help}");
        }
        for command in command.get_subcommands_mut() {
            let path = format!("{path} {}", command.get_name());
            check(command, &path);
        }
    }

    /// Returns the commands in the examples of a help text, without what the shell does with their
    /// output.
    fn examples(help: &str) -> Vec<String> {
        let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_default();
        let examples = examples.replace("\\\n", " ");
        let lines = examples.lines().map(|line| line.split(" # ").next().unwrap_or_default());
        let parts = lines.flat_map(|line| line.split(" && ").flat_map(|part| part.split(" | ")));
        let parts = parts.map(|part| part.split(" > ").next().unwrap_or_default().trim());
        parts.filter(|part| part.starts_with("dfs ")).map(str::to_owned).collect()
    }

    /// Splits a command line like a shell, as far as the examples need it.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for letter in line.chars().chain([' ']) {
            match (letter, quote) {
                ('\'' | '"', None) => quote = Some(letter),
                (_, Some(open)) if open == letter => quote = None,
                (' ', None) if word.is_empty() => {}
                (' ', None) => words.push(std::mem::take(&mut word)),
                _ => word.push(letter),
            }
        }
        words
    }

    /// Collects the help texts of a command and those below it, by their full names.
    fn help_texts(command: &mut clap::Command, name: &str, found: &mut Vec<(String, String)>) {
        found.push((name.to_owned(), command.render_long_help().to_string()));
        for below in command.get_subcommands_mut() {
            let name = format!("{name} {}", below.get_name());
            help_texts(below, &name, found);
        }
    }

    #[test]
    fn every_command_has_examples_of_its_own_that_are_understood() {
        let mut command = Cli::command();
        command.build();
        let mut found = Vec::new();
        help_texts(&mut command, "dfs", &mut found);
        for (name, help) in found.iter().filter(|(name, _)| name != "dfs") {
            let examples = examples(help);
            let is_own =
                |example: &String| example == name || example.starts_with(&format!("{name} "));
            assert!(examples.iter().any(is_own), "{name} has no example of its own:\n{help}");
            for example in &examples {
                let parsed = Cli::try_parse_from(words(example));
                assert!(parsed.is_ok(), "{name}: {example}: {:?}", parsed.err());
            }
        }
    }

    #[test]
    fn help_lists_own_options_first_and_global_ones_last() {
        let mut command = Cli::command();
        command.build();
        check(&mut command, "dfs");
        #[cfg(feature = "kube")]
        {
            let mut plugin = crate::invocation::plugin_command();
            plugin.build();
            check(&mut plugin, "kubectl dfs");
        }
    }
}

//! `dfs`: the command line and the roles coordinator, datanode and local.
//!
//! Each command has a file under `commands`; the roles are thin shells around the libraries
//! `dfs-coordinator` and `dfs-datanode`.

mod args;
mod commands;
mod confirmation;
mod context;
mod destination;
mod doctor;
mod duration;
mod error;
mod exit_code;
mod global;
mod interrupt;
mod invocation;
mod json;
#[cfg(test)]
#[path = "../tests/json_page.rs"]
mod json_page;
#[cfg(feature = "kube")]
mod kube;
mod output;
mod printable;
mod progress;
mod server;
mod tree_report;

use std::ffi::OsString;
use std::process::ExitCode;

use dfs_runtime::{LogFormat, init_logging};
use dfs_types::ErrorCode;

use crate::args::{Cli, Command};
use crate::context::{ClusterTarget, CommandFuture, Context};
use crate::error::{Error, Result};
use crate::global::Global;
use crate::invocation::Invocation;
use crate::output::Output;

/// Heading of the global options, which follow a command's own.
const HEADING: &str = "Global options";

/// Runs the command line `args`, starting with the program name. Returns the exit code: 0, or the
/// code of the error as listed by `dfs --help`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let Invocation { cli: Cli { global, command }, target } = match Invocation::parse(&args) {
        Ok(invocation) => invocation,
        Err(error) => return not_understood(&error, args.iter().any(|arg| arg == "--json")),
    };
    let out = Output { is_json: global.json, is_quiet: global.quiet };
    match start(&global, target, command, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_reported() {
                out.error(&error);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints the parser's error, or the requested help text.
fn not_understood(said: &clap::Error, is_json: bool) -> ExitCode {
    // Help and version are not errors, and are printed to stdout.
    if !said.use_stderr() {
        drop(said.print());
        return ExitCode::SUCCESS;
    }
    let error = Error::usage(said.to_string().trim_end());
    if is_json {
        Output { is_json, is_quiet: false }.error(&error);
    } else {
        drop(said.print());
    }
    ExitCode::from(error.exit_code())
}

fn start(global: &Global, target: ClusterTarget, command: Command, out: Output) -> Result<()> {
    let format: LogFormat = global.log_format.parse().map_err(Error::usage)?;
    let default_level = if command.is_server() { "info" } else { "warn" };
    let level = global.log.as_deref().unwrap_or(default_level);
    let is_tour = matches!(&command, Command::Local(args) if args.is_tour());
    let level = if is_tour && global.log.is_none() { "off" } else { level };
    init_logging(level, format).map_err(Error::usage)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_name("dfs").build();
    let runtime = runtime.map_err(|error| {
        Error::new(ErrorCode::Internal, format_args!("cannot start threads: {error}"))
    })?;
    let result = runtime.block_on(dispatch(global, target, command, out));
    // A terminal or pipe read that never ends must not keep the process alive.
    runtime.shutdown_background();
    result
}

async fn dispatch(
    global: &Global,
    target: ClusterTarget,
    command: Command,
    out: Output,
) -> Result<()> {
    match command {
        Command::Local(args) => commands::local::run(args, run_line, out).await,
        Command::Coordinator(args) => commands::coordinator::run(args, out).await,
        Command::Datanode(args) => commands::datanode::run(args, global).await,
        Command::Metadata(args) => commands::metadata::run(args, out).await,
        Command::Completions(args) => {
            commands::completions::run(&args, <Cli as clap::CommandFactory>::command(), out);
            Ok(())
        }
        command => {
            let cx = match target {
                #[cfg(feature = "kube")]
                ClusterTarget::Kube(target) if !command.is_local() => {
                    Context::in_kubernetes(global, target, out).await?
                }
                _ => Context::new(global, out)?,
            };
            interrupt::interruptible(&cx.client, run_command(command, &cx)).await
        }
    }
}

/// Runs a command line that talks to a cluster, within this process.
fn run_line(words: Vec<OsString>, out: Output) -> CommandFuture {
    Box::pin(async move {
        let cli = <Cli as clap::Parser>::try_parse_from(words).map_err(Error::usage)?;
        run_command(cli.command, &Context::new(&cli.global, out)?).await
    })
}

/// Runs a command that talks to a cluster.
async fn run_command(command: Command, cx: &Context) -> Result<()> {
    match command {
        Command::Put(args) => commands::put::run(args, cx).await,
        Command::Get(args) => commands::get::run(args, cx).await,
        Command::Cat(args) => commands::cat::run(args, cx).await,
        Command::Ls(args) => commands::ls::run(args, cx).await,
        Command::Stat(args) => commands::stat::run(args, cx).await,
        Command::Mkdir(args) => commands::mkdir::run(args, cx).await,
        Command::Mv(args) => commands::mv::run(args, cx).await,
        Command::Ln(args) => commands::ln::run(args, cx).await,
        Command::Rm(args) => commands::rm::run(args, cx).await,
        Command::Undelete(args) => commands::undelete::run(args, cx).await,
        Command::Xattr(args) => commands::xattr::run(args, cx).await,
        Command::Du(args) => commands::du::run(args, cx).await,
        Command::Df(args) => commands::df::run(args, cx).await,
        Command::Tree(args) => commands::tree::run(args, cx).await,
        Command::Explain(args) => commands::explain::run(args, cx).await,
        Command::Status(args) => commands::status::run(args, cx).await,
        Command::Doctor(args) => commands::doctor::run(args, cx).await,
        Command::Node(args) => commands::node::run(args, cx).await,
        Command::SetReplication(args) => commands::set_replication::run(args, cx).await,
        Command::Fsck(args) => commands::fsck::run(args, cx).await,
        Command::Gc(args) => commands::gc::run(args, cx).await,
        Command::Disk(args) => commands::disk::run(args, cx).await,
        Command::Worker(args) => commands::worker::run(args, cx).await,
        Command::Upgrade(args) => commands::upgrade::run(args, cx).await,
        Command::Bench(args) => commands::bench::run(args, cx).await,
        Command::Version(args) => commands::version::run(args, cx).await,
        Command::Local(_)
        | Command::Coordinator(_)
        | Command::Datanode(_)
        | Command::Metadata(_)
        | Command::Completions(_) => Err(Error::usage("this command talks to no cluster")),
    }
}

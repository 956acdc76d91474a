//! `dfs local`.

mod cluster;
mod files;
mod shape;
mod tour;

use std::path::PathBuf;

use clap::Args;
use dfs_types::ErrorCode;

use crate::context::RunCommand;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::server;
use cluster::{Local, Plan};

/// What `dfs local` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
The same folder can be used again: nothing in it is lost by stopping. Ctrl-C stops.
When it listens it says so on stdout: ready local grpc ADDRESS http ADDRESS

Examples:
  dfs local --demo
  dfs local --demo ~/Pictures
  dfs local --data-dir /tmp/dfs
  dfs local --datanodes 5 --replication-factor 2 --listen 127.0.0.1:9000
  dfs local --coordinators 3 --metadata etcd://127.0.0.1:2379/try")]
pub(crate) struct LocalArgs {
    /// Datanodes to run, at least as many as the folder holds; those that it holds when not set, 3
    /// in a new one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    datanodes: Option<u16>,
    /// Where everything lies; made when it is not there.
    #[arg(long, env = "DFS_DATA_DIR", value_name = "DIR", default_value = "dfs-data")]
    data_dir: PathBuf,
    /// Replicas of each byte of new files, at most one a datanode; 3, or as many as there are
    /// datanodes, until another number is set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    replication_factor: Option<u8>,
    /// Coordinators to run, on ports 100 apart. More than one need metadata that they can share.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    coordinators: u16,
    /// Where the metadata lies, e.g. etcd://127.0.0.1:2379/dfs; in the data directory when not set.
    #[arg(long, env = "DFS_METADATA", value_name = "URL")]
    metadata: Option<String>,
    /// Where the coordinator listens.
    #[arg(long, env = "DFS_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: String,
    /// Where /metrics, /healthz and /readyz of the coordinator listen.
    #[arg(long, env = "DFS_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7071")]
    http_listen: String,
    /// Talk plaintext to other machines.
    #[arg(long)]
    insecure: bool,
    /// Go on a tour of a file system that is made for it and taken away again, with a file or
    /// directory of yours, or with generated files. Nothing else that is said here counts.
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "a flag that may have a value")]
    demo: Option<Option<PathBuf>>,
}

impl LocalArgs {
    /// Whether it is only a tour.
    pub(crate) fn is_tour(&self) -> bool {
        self.demo.is_some()
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

pub(crate) async fn run(args: LocalArgs, command: RunCommand, out: Output) -> Result<()> {
    let shutdown = server::prepare()?;
    if let Some(path) = args.demo {
        return tokio::select! {
            biased;
            () = shutdown.requested() => Err(Error::new(ErrorCode::Internal, "stopped")),
            result = tour::run(path, command, out) => result,
        };
    }
    server::check_exposure(&[&args.listen, &args.http_listen], args.insecure)?;
    if server::is_every_address(&args.listen) {
        return Err(Error::usage(format_args!("{} is no address to be reached at", args.listen))
            .hint("name one address of this machine: its datanodes tell clients to come there"));
    }
    let coordinators = usize::from(args.coordinators);
    if coordinators > 1 && !args.metadata.as_ref().is_some_and(|url| url.starts_with("etcd")) {
        return Err(Error::usage("several coordinators need metadata that they can share")
            .hint("--metadata etcd://HOST:PORT/NAME says where an etcd is"));
    }
    let plan = Plan {
        folder: args.data_dir.clone(),
        coordinators,
        metadata: args.metadata,
        datanodes: args.datanodes.map(usize::from),
        replication_factor: args.replication_factor,
        listen: args.listen,
        http_listen: args.http_listen,
        is_hasty: false,
    };
    let mut local = Local::start(plan).await?;
    server::say_ready("local", &local.address(), local.http_address());
    out.say(format_args!(
        "dfs with {} and {} in {}; try:\n  dfs --coordinator {} status",
        counted(local.datanodes(), "datanode"),
        counted(local.replication_factor(), "replica"),
        args.data_dir.display(),
        local.urls().join(",")
    ));
    tokio::select! {
        biased;
        () = shutdown.requested() => {}
        error = local.failure() => return Err(error),
    }
    local.stop().await
}

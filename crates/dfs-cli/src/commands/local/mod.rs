//! `dfs local`.

mod cluster;
mod files;
mod shape;
mod tour;

use std::path::PathBuf;

use clap::Args;
use dfs_types::{ErrorCode, counted};

use crate::context::RunCommand;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::server;
use cluster::{Local, Plan};

/// Arguments of `dfs local`.
#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C stops it. The data directory keeps its content, and can be used again.
Once listening, it prints to stdout: ready local grpc ADDRESS http ADDRESS

Examples:
  dfs local --demo
  dfs local --demo ~/Pictures
  dfs local --data-dir /tmp/dfs
  dfs local --datanodes 5 --replication-factor 2 --listen 127.0.0.1:9000
  dfs local --coordinators 3 --metadata etcd://127.0.0.1:2379/try")]
pub(crate) struct LocalArgs {
    /// Datanodes to run, at least as many as the data directory holds; by default exactly those, or
    /// 3 in a new directory.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    datanodes: Option<u16>,
    /// Directory of all data; created if missing.
    #[arg(long, env = "DFS_DATA_DIR", value_name = "DIR", default_value = "dfs-data")]
    data_dir: PathBuf,
    /// Replicas of each byte of new files, at most one per datanode; 3 by default, or one per
    /// datanode if there are fewer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    replication_factor: Option<u8>,
    /// Coordinators to run, on ports 100 apart. Several require shared metadata.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    coordinators: u16,
    /// Location of the metadata, e.g. etcd://127.0.0.1:2379/dfs; the data directory by default.
    #[arg(long, env = "DFS_METADATA", value_name = "URL")]
    metadata: Option<String>,
    /// Address that the coordinator listens on.
    #[arg(long, env = "DFS_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: String,
    /// Address of /metrics, /healthz and /readyz of the coordinator.
    #[arg(long, env = "DFS_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7071")]
    http_listen: String,
    /// Allow plaintext connections from other machines.
    #[arg(long)]
    insecure: bool,
    /// Watch a tour of a temporary file system, with a file or directory you name, or with
    /// generated files. Other options are ignored.
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "a flag that may have a value")]
    demo: Option<Option<PathBuf>>,
}

impl LocalArgs {
    /// Returns true if only the tour is wanted.
    pub(crate) fn is_tour(&self) -> bool {
        self.demo.is_some()
    }
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
        return Err(Error::usage(format_args!(
            "{} is not an address that clients can reach",
            args.listen
        ))
        .hint("name one address of this machine: its datanodes advertise it to clients"));
    }
    let coordinators = usize::from(args.coordinators);
    if coordinators > 1 && !args.metadata.as_ref().is_some_and(|url| url.starts_with("etcd")) {
        return Err(Error::usage("several coordinators require shared metadata")
            .hint("use an etcd with --metadata etcd://HOST:PORT/NAME"));
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
        counted(local.datanodes() as u64, "datanode"),
        counted(local.replication_factor() as u64, "replica"),
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

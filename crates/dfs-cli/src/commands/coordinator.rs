//! `dfs coordinator`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use dfs_coordinator::{Components, Service, Settings};
use dfs_metadata::engine::Engine;
use dfs_transport::TcpNetwork;
use dfs_types::{ErrorCode, OsRandom, SystemClock};
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::Output;
use crate::server;

/// What `dfs coordinator` takes.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
When it listens it says so on stdout: ready coordinator grpc ADDRESS http ADDRESS

Examples:
  dfs coordinator init --metadata redb:///var/lib/dfs/metadata
  dfs coordinator --metadata redb:///var/lib/dfs/metadata --join-secret-file /etc/dfs/join-secret"
)]
pub(crate) struct CoordinatorArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a cluster in an empty metadata store, once in its life
    Init(InitArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Where the metadata shall lie: redb:///absolute/folder
    #[arg(long, env = "DFS_METADATA", value_name = "URL")]
    metadata: String,
    /// Copies of each byte, 1 to 16.
    #[arg(long, value_name = "N", default_value_t = 3)]
    replication_factor: u8,
    /// Durable copies without which no write is acknowledged; a majority when not set.
    #[arg(long, value_name = "N")]
    min_write_replicas: Option<u8>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where the metadata lies: redb:///absolute/folder
    #[arg(long, env = "DFS_METADATA", value_name = "URL")]
    metadata: Option<String>,
    /// Settings in YAML; flags and DFS_* variables stand over it.
    #[arg(long, env = "DFS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What datanodes must know to join.
    #[arg(long, env = "DFS_JOIN_SECRET_FILE", value_name = "FILE")]
    join_secret_file: Option<PathBuf>,
    /// Where to listen; 127.0.0.1:7070 when not set.
    #[arg(long, env = "DFS_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where /metrics, /healthz and /readyz listen; 127.0.0.1:7071 when not set.
    #[arg(long, env = "DFS_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Under which address others reach this coordinator; where it listens when not set.
    #[arg(long, env = "DFS_ADVERTISE", value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Talk plaintext to other machines.
    #[arg(long)]
    insecure: bool,
}

/// What flags say over the settings file.
#[derive(Serialize)]
struct Flags<'a> {
    listen: Option<&'a str>,
    http_listen: Option<&'a str>,
    advertise: Option<&'a str>,
    join_secret: Option<String>,
}

pub(crate) async fn run(args: CoordinatorArgs, out: Output) -> Result<()> {
    match args.action {
        Some(Action::Init(args)) => init(args, out).await,
        None => serve(args.serve).await,
    }
}

async fn init(args: InitArgs, out: Output) -> Result<()> {
    let settings = Settings {
        replication_factor: args.replication_factor,
        min_write_replicas: args.min_write_replicas,
        ..Settings::default()
    };
    let engine = open(&args.metadata).await?;
    let options = settings.init_options();
    let cluster = dfs_coordinator::init(engine, &SystemClock, &OsRandom, options).await;
    let cluster = cluster.map_err(|error| error_of(&error))?;
    if out.is_json {
        out.json(&json!({ "cluster": cluster.to_string() }));
    } else {
        out.line(format_args!("made the cluster {cluster} in {}", args.metadata));
    }
    Ok(())
}

async fn serve(args: ServeArgs) -> Result<()> {
    let shutdown = server::prepare()?;
    let join_secret = args.join_secret_file.as_deref().map(server::join_secret).transpose()?;
    let flags = Flags {
        listen: args.listen.as_deref(),
        http_listen: args.http_listen.as_deref(),
        advertise: args.advertise.as_deref(),
        join_secret,
    };
    let settings: Settings = server::settings(args.config.as_deref(), &flags)?;
    server::check_exposure(&[&settings.listen, &settings.http_listen], args.insecure)?;
    let metadata = args.metadata.ok_or_else(|| {
        Error::usage("--metadata is not set")
            .hint("it says where the metadata lies: redb:///folder")
    })?;
    let components = Components {
        engine: open(&metadata).await?,
        network: Arc::new(TcpNetwork),
        clock: Arc::new(SystemClock),
        random: Arc::new(OsRandom),
    };
    let service = Service::start(settings, components).await.map_err(|error| error_of(&error))?;
    let handle = service.handle();
    let http = handle.http_address.map(|address| address.to_string());
    server::say_ready("coordinator", &handle.address.to_string(), http);
    service.run(shutdown).await.map_err(|error| error_of(&error))
}

async fn open(url: &str) -> Result<Arc<dyn Engine>> {
    dfs_engines::open(url).await.map_err(|error| {
        let code = match &error {
            dfs_engines::OpenError::UnknownUrl(_) | dfs_engines::OpenError::WrongUrl { .. } => {
                ErrorCode::InvalidArgument
            }
            dfs_engines::OpenError::Engine { .. } => ErrorCode::Internal,
        };
        Error::new(code, server::chain(&error))
    })
}

/// What the user is told when a coordinator cannot start.
pub(crate) fn error_of(error: &dfs_coordinator::Error) -> Error {
    let code = match error {
        dfs_coordinator::Error::Setting { .. } => ErrorCode::InvalidArgument,
        dfs_coordinator::Error::AlreadyInitialised(_) => ErrorCode::AlreadyExists,
        _ => ErrorCode::Internal,
    };
    Error::new(code, server::chain(error))
}

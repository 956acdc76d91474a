//! `dfs coordinator`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use dfs_coordinator::{Components, InitOptions, Service, Settings};
use dfs_metadata::engine::Engine;
use dfs_transport::TcpNetwork;
use dfs_types::{OsRandom, SystemClock, with_causes};
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::output::Output;
use crate::server;

/// Arguments of `dfs coordinator`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Once listening, it prints to stdout: ready coordinator grpc ADDRESS http ADDRESS

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
    /// Create a cluster in an empty metadata store
    Init(InitArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dfs coordinator init --metadata redb:///var/lib/dfs/metadata
  dfs coordinator init --metadata etcd://a:2379,b:2379,c:2379/dfs --replication-factor 2")]
struct InitArgs {
    /// Location of the metadata: redb:///absolute/directory
    #[arg(long, env = "DFS_METADATA", value_name = "URL")]
    metadata: String,
    /// Settings file in YAML, the same as the coordinator's; flags override it.
    #[arg(long, env = "DFS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replicas of each byte, 1 to 16; 3 by default.
    #[arg(long, value_name = "N")]
    replication_factor: Option<u8>,
    /// Durable replicas required to acknowledge a write; a majority by default.
    #[arg(long, value_name = "N")]
    min_write_replicas: Option<u8>,
    /// Id of the cluster, 32 hexadecimal digits, globally unique; random by default.
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Location of the metadata: redb:///absolute/directory
    #[arg(long, env = "DFS_METADATA", value_name = "URL")]
    metadata: Option<String>,
    /// Settings file in YAML; flags and DFS_* variables override it.
    #[arg(long, env = "DFS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Secret that datanodes must present to join.
    #[arg(long, env = "DFS_JOIN_SECRET_FILE", value_name = "FILE")]
    join_secret_file: Option<PathBuf>,
    /// Address to listen on; 127.0.0.1:7070 by default.
    #[arg(long, env = "DFS_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of /metrics, /healthz and /readyz; 127.0.0.1:7071 by default.
    #[arg(long, env = "DFS_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Address under which others reach this coordinator; the listen address by default.
    #[arg(long, env = "DFS_ADVERTISE", value_name = "ADDRESS")]
    advertise: Option<String>,
    /// If the store has no cluster, wait for the init call, which the operator makes.
    #[arg(long)]
    await_init: bool,
    /// Allow plaintext connections from other machines.
    #[arg(long)]
    insecure: bool,
}

/// Settings from flags, which override the settings file.
#[derive(Serialize)]
struct Flags<'a> {
    listen: Option<&'a str>,
    http_listen: Option<&'a str>,
    advertise: Option<&'a str>,
    join_secret: Option<String>,
    await_init: Option<bool>,
}

/// Settings of `init` from flags, which override the settings file.
#[derive(Serialize)]
struct InitFlags<'a> {
    replication_factor: Option<u8>,
    min_write_replicas: Option<u8>,
    cluster_id: Option<&'a str>,
}

pub(crate) async fn run(args: CoordinatorArgs, out: Output) -> Result<()> {
    match args.action {
        Some(Action::Init(args)) => init(args, out).await,
        None => serve(args.serve).await,
    }
}

/// Returns the options that the cluster is created with.
fn init_options(args: &InitArgs) -> Result<InitOptions> {
    let flags = InitFlags {
        replication_factor: args.replication_factor,
        min_write_replicas: args.min_write_replicas,
        cluster_id: args.cluster_id.as_deref(),
    };
    let settings: Settings = server::settings(args.config.as_deref(), &flags)?;
    settings.init_options().map_err(|error| error_of(&error))
}

async fn init(args: InitArgs, out: Output) -> Result<()> {
    let options = init_options(&args)?;
    let engine = open(&args.metadata).await?;
    let cluster = dfs_coordinator::init(engine, &SystemClock, &OsRandom, options).await;
    let cluster = cluster.map_err(|error| error_of(&error))?;
    if out.is_json {
        out.json(&json!({ "cluster": cluster.to_string() }));
    } else {
        out.line(format_args!("created cluster {cluster} in {}", args.metadata));
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
        await_init: args.await_init.then_some(true),
    };
    let settings: Settings = server::settings(args.config.as_deref(), &flags)?;
    server::check_exposure(&[&settings.listen, &settings.http_listen], args.insecure)?;
    let metadata = args.metadata.ok_or_else(|| {
        Error::usage("--metadata is not set")
            .hint("set it to the location of the metadata, such as redb:///absolute/directory")
    })?;
    check_advertise(&settings, &metadata)?;
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

/// Refuses a wildcard address if coordinators share the store: they call each other, and could not
/// reach it.
fn check_advertise(settings: &Settings, metadata: &str) -> Result<()> {
    let listens_everywhere =
        settings.listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    let is_shared = !metadata.starts_with("redb:") && !metadata.starts_with("memory:");
    if listens_everywhere && is_shared && settings.advertise.is_empty() {
        return Err(Error::usage(format_args!(
            "--advertise is not set, but other coordinators cannot reach {}",
            settings.listen
        ))
        .hint("set it to the HOST:PORT at which they can reach this one"));
    }
    Ok(())
}

async fn open(url: &str) -> Result<Arc<dyn Engine>> {
    let opened = dfs_engines::open(url).await;
    opened.map_err(|error| Error::new(error.code(), with_causes(&error)))
}

/// Returns the error shown when a coordinator cannot start.
pub(crate) fn error_of(error: &dfs_coordinator::Error) -> Error {
    Error::new(error.code(), with_causes(error))
}

#[cfg(test)]
mod tests {
    use dfs_types::{ClusterId, ErrorCode};

    use super::*;

    #[test]
    fn shared_store_requires_a_reachable_address() {
        let settings = |listen: &str, advertise: &str| Settings {
            listen: listen.to_owned(),
            advertise: advertise.to_owned(),
            ..Settings::default()
        };
        let etcd = "etcd://127.0.0.1:2379/dfs";
        let refused = check_advertise(&settings("0.0.0.0:7070", ""), etcd).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument);
        for (listen, advertise, metadata) in [
            ("0.0.0.0:7070", "a:7070", etcd),
            ("10.0.0.1:7070", "", etcd),
            ("0.0.0.0:7070", "", "redb:///store"),
        ] {
            check_advertise(&settings(listen, advertise), metadata).unwrap();
        }
    }

    #[test]
    fn init_flags_override_the_settings_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coordinator.yaml");
        let (one, two) = (ClusterId(1), ClusterId(2));
        let text = "replication_factor: 5\nmin_write_replicas: 2\nlisten: a:1\n";
        std::fs::write(&file, format!("{text}cluster_id: '{one}'\n")).unwrap();
        let args = |config: Option<&PathBuf>, factor, min, id: Option<ClusterId>| InitArgs {
            metadata: "memory:".to_owned(),
            config: config.cloned(),
            replication_factor: factor,
            min_write_replicas: min,
            cluster_id: id.map(|id| id.to_string()),
        };
        let made = |cluster, replication_factor, min_write_replicas| InitOptions {
            cluster,
            replication_factor,
            min_write_replicas,
        };
        let file = Some(&file);
        for (args, options) in [
            (args(None, None, None, None), made(None, 3, None)),
            (args(file, None, None, None), made(Some(one), 5, Some(2))),
            (args(file, Some(4), None, Some(two)), made(Some(two), 4, Some(2))),
            (args(None, Some(2), Some(1), None), made(None, 2, Some(1))),
        ] {
            assert_eq!(init_options(&args).unwrap(), options);
        }
        let wrong = InitArgs { cluster_id: Some("7".to_owned()), ..args(None, None, None, None) };
        assert_eq!(init_options(&wrong).unwrap_err().code(), ErrorCode::InvalidArgument);
    }
}

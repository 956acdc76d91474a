//! `dfs datanode`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dfs_chunkstore::{OsFs, Pool};
use dfs_datanode::{Components, Service, Settings, open_store};
use dfs_transport::TcpNetwork;
use dfs_types::{ByteSize, OsRandom, Random, with_causes};
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::global::Global;
use crate::server;

/// Arguments of `dfs datanode`.
#[derive(Debug, Args)]
#[command(after_help = "\
Once listening, it prints to stdout: ready datanode grpc ADDRESS http ADDRESS

Examples:
  dfs datanode --data-dir /disks/1/dfs --data-dir /disks/2/dfs \\
      --join-secret-file /etc/dfs/join-secret --coordinator http://coordinator:7070 \\
      --listen 0.0.0.0:7080 --advertise \"$(hostname):7080\" --insecure")]
pub(crate) struct DatanodeArgs {
    /// A directory on each disk to use; created if missing.
    #[arg(long, env = "DFS_DATA_DIR", value_name = "DIR", value_delimiter = ',')]
    data_dir: Vec<PathBuf>,
    /// Bytes to use on each disk; all of it by default.
    #[arg(long, env = "DFS_CAPACITY", value_name = "SIZE")]
    capacity: Option<ByteSize>,
    /// Settings file in YAML; flags and DFS_* variables override it.
    #[arg(long, env = "DFS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Secret that a datanode must present to join.
    #[arg(long, env = "DFS_JOIN_SECRET_FILE", value_name = "FILE")]
    join_secret_file: Option<PathBuf>,
    /// Address to listen on; 127.0.0.1:7080 by default.
    #[arg(long, env = "DFS_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of /metrics, /healthz and /readyz; 127.0.0.1:7081 by default.
    #[arg(long, env = "DFS_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Address under which others reach this node; the listen address by default.
    #[arg(long, env = "DFS_ADVERTISE", value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Failure domain: replicas are spread across zones.
    #[arg(long, env = "DFS_ZONE", value_name = "NAME")]
    zone: Option<String>,
    /// Name of the machine.
    #[arg(long, env = "DFS_HOST", value_name = "NAME")]
    host: Option<String>,
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
    zone: Option<&'a str>,
    host: Option<&'a str>,
    coordinators: Option<&'a [String]>,
    join_secret: Option<String>,
    disks: Option<serde_json::Value>,
}

pub(crate) async fn run(args: DatanodeArgs, global: &Global) -> Result<()> {
    let shutdown = server::prepare()?;
    let join_secret = args.join_secret_file.as_deref().map(server::join_secret).transpose()?;
    let capacity = args.capacity.map(|size| size.0);
    let disks = args.data_dir.iter();
    let disks = disks.map(|folder| json!({ "folder": folder, "capacity": capacity }));
    let disks: Vec<_> = disks.collect();
    let flags = Flags {
        listen: args.listen.as_deref(),
        http_listen: args.http_listen.as_deref(),
        advertise: args.advertise.as_deref(),
        zone: args.zone.as_deref(),
        host: args.host.as_deref(),
        coordinators: Some(&global.coordinator[..]).filter(|named| !named.is_empty()),
        join_secret,
        disks: (!disks.is_empty()).then_some(disks.into()),
    };
    let settings: Settings = server::settings(args.config.as_deref(), &flags)?;
    server::check_exposure(&[&settings.listen, &settings.http_listen], args.insecure)?;
    if settings.disks.is_empty() {
        return Err(Error::usage("--data-dir is not set")
            .hint("give a directory on a disk; repeat the option for several disks"));
    }
    let service = start(settings).await?;
    let handle = service.handle();
    let http = handle.http_address().map(|address| address.to_string());
    server::say_ready("datanode", &handle.address().to_string(), http);
    service.run(shutdown).await;
    Ok(())
}

/// Opens the disks and listens.
pub(crate) async fn start(settings: Settings) -> Result<Service> {
    let pool = Pool::threads(settings.disk_threads);
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let store = open_store(&settings, Arc::new(OsFs::new()), pool.clone(), random.clone()).await;
    let store = store.map_err(|error| error_of(&error))?;
    let components = Components { network: Arc::new(TcpNetwork), store, pool, random };
    Service::start(settings, components).await.map_err(|error| error_of(&error))
}

/// Returns the error shown when a datanode cannot start.
fn error_of(error: &dfs_datanode::Error) -> Error {
    Error::new(error.code(), with_causes(error))
}

//! A coordinator and datanodes in this process, on loopback.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_client::{Client, Replication};
use dfs_coordinator as coordinator;
use dfs_datanode as datanode;
use dfs_runtime::{JoinSecret, Shutdown, Trigger};
use dfs_transport::TcpNetwork;
use dfs_types::{ErrorCode, NodeId, OsRandom, Random, SystemClock, with_causes};
use tokio::task::{JoinHandle, JoinSet};

use super::shape::Shape;
use crate::commands::coordinator::error_of;
use crate::error::{Error, Result, blocking};
use crate::server;

/// Maximum number of datanodes looked for in a directory.
const DATANODES_MAX: usize = 64;

/// Services to run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) folder: PathBuf,
    pub(super) coordinators: usize,
    /// URL of the metadata; stored in the directory when not set.
    pub(super) metadata: Option<String>,
    /// Number of datanodes; when not set, as many as the directory holds, or 3.
    pub(super) datanodes: Option<usize>,
    pub(super) replication_factor: Option<u8>,
    pub(super) listen: String,
    pub(super) http_listen: String,
    /// True to consider silent datanodes lost after seconds.
    pub(super) is_hasty: bool,
}

/// The running services. Dropping it stops everything like a crash.
#[derive(Debug)]
pub(super) struct Local {
    plan: Plan,
    secret: String,
    coordinators: Vec<(coordinator::Handle, Part)>,
    datanodes: Vec<Datanode>,
    replication_factor: usize,
    /// Lock that makes this process the only user of the directory.
    _lock: File,
}

#[derive(Debug)]
struct Datanode {
    id: NodeId,
    part: Option<Part>,
}

/// A running service.
#[derive(Debug)]
struct Part {
    stop: Trigger,
    running: JoinHandle<Result<()>>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Part {
    fn start(run: impl FnOnce(Shutdown) -> JoinHandle<Result<()>>) -> Self {
        let (stop, shutdown) = Shutdown::new();
        Self { stop, running: run(shutdown) }
    }

    async fn stop(mut self) -> Result<()> {
        self.stop.stop();
        ended((&mut self.running).await)
    }
}

fn ended(result: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    result.unwrap_or_else(|error| Err(Error::new(ErrorCode::Internal, error)))
}

impl Local {
    /// Starts all services in a new or existing directory.
    pub(super) async fn start(mut plan: Plan) -> Result<Self> {
        let folder = plan.folder.clone();
        let (lock, folder, secret) = blocking(move || prepare(&folder)).await??;
        plan.folder = folder;
        let there = (1..=DATANODES_MAX).take_while(|number| plan.disk(*number).exists()).count();
        let shape = Shape::new(plan.datanodes, plan.replication_factor, there)?;
        let engine = match &plan.metadata {
            Some(url) => url.clone(),
            None => format!("redb://{}", plan.folder.join("metadata").display()),
        };
        let engine = dfs_engines::open(&engine).await;
        let engine = engine.map_err(|error| Error::new(error.code(), with_causes(&error)))?;
        plan.replication_factor = Some(shape.replication_factor(None));
        let settings = plan.coordinator(&secret, 0);
        let options = settings.init_options().map_err(|error| error_of(&error))?;
        match coordinator::init(engine.clone(), &SystemClock, &OsRandom, options).await {
            Ok(_) | Err(coordinator::Error::AlreadyInitialised(_)) => {}
            Err(error) => return Err(error_of(&error)),
        }
        let random: Arc<dyn Random> = Arc::new(OsRandom);
        let components = coordinator::Components {
            engine,
            network: Arc::new(TcpNetwork),
            clock: Arc::new(SystemClock),
            random,
        };
        let mut coordinators = Vec::new();
        for number in 0..plan.coordinators {
            let settings = plan.coordinator(&secret, number as u16);
            let service = coordinator::Service::start(settings, components.clone()).await;
            let service = service.map_err(|error| error_of(&error))?;
            let handle = service.handle();
            let part = Part::start(|shutdown| {
                tokio::spawn(async move { service.run(shutdown).await.map_err(|e| error_of(&e)) })
            });
            coordinators.push((handle, part));
        }
        let datanodes = Vec::new();
        let replication_factor = 0;
        let mut local =
            Self { plan, secret, coordinators, datanodes, replication_factor, _lock: lock };
        local.set_replication(&shape).await?;
        for _ in 0..shape.datanodes() {
            local.add_datanode().await?;
        }
        Ok(local)
    }

    /// Derives the replication factor from the number of datanodes.
    async fn set_replication(&mut self, shape: &Shape) -> Result<()> {
        let admin = Client::builder().coordinators(self.urls()).connect_lazy()?.admin();
        let status = admin.status().await?;
        let factor = shape.replication_factor(Some(status.replication_factor));
        if u32::from(factor) != status.replication_factor {
            admin.set_replication(status.cluster, Replication::new(factor.into())).await?;
        }
        self.replication_factor = factor.into();
        Ok(())
    }

    /// Replicas that new files get.
    pub(super) fn replication_factor(&self) -> usize {
        self.replication_factor
    }

    /// Starts another datanode. Returns its number, counted from 0.
    pub(super) async fn add_datanode(&mut self) -> Result<usize> {
        let number = self.datanodes.len();
        let (id, part) = self.datanode(number).await?;
        self.datanodes.push(Datanode { id, part: Some(part) });
        Ok(number)
    }

    /// Stops a datanode like a crash.
    pub(super) fn kill_datanode(&mut self, number: usize) {
        if let Some(datanode) = self.datanodes.get_mut(number) {
            datanode.part = None;
        }
    }

    /// Restarts a stopped datanode.
    pub(super) async fn restart_datanode(&mut self, number: usize) -> Result<()> {
        let (id, part) = self.datanode(number).await?;
        if let Some(datanode) = self.datanodes.get_mut(number) {
            *datanode = Datanode { id, part: Some(part) };
        }
        Ok(())
    }

    async fn datanode(&self, number: usize) -> Result<(NodeId, Part)> {
        let settings = self.plan.datanode(number + 1, &self.secret, self.urls());
        let service = crate::commands::datanode::start(settings).await?;
        let id = service.handle().node_id();
        let part = Part::start(|shutdown| {
            tokio::spawn(async move {
                service.run(shutdown).await;
                Ok(())
            })
        });
        Ok((id, part))
    }

    /// Returns the address of the first coordinator.
    pub(super) fn address(&self) -> String {
        self.coordinators.first().map(|(handle, _)| handle.address.to_string()).unwrap_or_default()
    }

    /// Returns the address of its HTTP service.
    pub(super) fn http_address(&self) -> Option<String> {
        let (handle, _) = self.coordinators.first()?;
        handle.http_address.map(|address| address.to_string())
    }

    /// Returns the addresses of all coordinators.
    pub(super) fn urls(&self) -> Vec<String> {
        let url = |(handle, _): &(coordinator::Handle, Part)| format!("http://{}", handle.address);
        self.coordinators.iter().map(url).collect()
    }

    /// Returns the number of datanodes.
    pub(super) fn datanodes(&self) -> usize {
        self.datanodes.len()
    }

    /// Returns the node id of a datanode.
    pub(super) fn node_id(&self, number: usize) -> Option<NodeId> {
        self.datanodes.get(number).map(|datanode| datanode.id)
    }

    /// Waits until a service ends unexpectedly, and returns its error.
    pub(super) async fn failure(&mut self) -> Error {
        let mut running: Vec<_> =
            self.coordinators.iter_mut().map(|(_, part)| &mut part.running).collect();
        let parts = self.datanodes.iter_mut().filter_map(|datanode| datanode.part.as_mut());
        running.extend(parts.map(|part| &mut part.running));
        let (result, _, _) = futures_util::future::select_all(running).await;
        let stopped = || Error::new(ErrorCode::Internal, "a part of the file system has stopped");
        ended(result).err().unwrap_or_else(stopped)
    }

    /// Stops all services in order: the datanodes first.
    pub(super) async fn stop(self) -> Result<()> {
        let mut ending = JoinSet::new();
        for datanode in self.datanodes {
            if let Some(part) = datanode.part {
                ending.spawn(part.stop());
            }
        }
        let mut results = ending.join_all().await;
        let mut ending = JoinSet::new();
        for (_, part) in self.coordinators {
            ending.spawn(part.stop());
        }
        results.extend(ending.join_all().await);
        results.into_iter().collect()
    }
}

impl Plan {
    fn disk(&self, number: usize) -> PathBuf {
        self.folder.join(format!("datanode-{number}"))
    }

    /// Returns the settings of a coordinator, counted from 0.
    fn coordinator(&self, secret: &str, number: u16) -> coordinator::Settings {
        let mut settings = coordinator::Settings {
            listen: nth_port(&self.listen, number),
            // Only the first one serves HTTP.
            http_listen: if number == 0 { self.http_listen.clone() } else { String::new() },
            join_secret: JoinSecret::new(secret),
            replication_factor: self.replication_factor,
            finalize_upgrades: true,
            ..coordinator::Settings::default()
        };
        if self.is_hasty {
            settings.heartbeat_interval_ms = 100;
            settings.suspect_after_ms = 500;
            settings.lost_after_ms = 2_000;
            settings.worker_lease_ms = 1_000;
            settings.drain_ms = 1_000;
        }
        settings
    }

    fn datanode(
        &self,
        number: usize,
        secret: &str,
        coordinators: Vec<String>,
    ) -> datanode::Settings {
        // Datanodes listen where the coordinator is reachable.
        let host = self.listen.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
        let mut settings = datanode::Settings {
            listen: format!("{host}:0"),
            http_listen: "127.0.0.1:0".to_owned(),
            coordinators,
            join_secret: JoinSecret::new(secret),
            disks: vec![datanode::Disk::new(self.disk(number))],
            ..datanode::Settings::default()
        };
        if self.is_hasty {
            settings.move_bytes_per_second = 0;
            settings.drain_ms = 1_000;
        }
        settings
    }
}

/// Distance of the ports of two coordinators; other ports of dfs are close to the first.
const PORT_STEP: u16 = 100;

/// Returns the address of a coordinator, counted from 0; port 0 stays a free choice.
fn nth_port(address: &str, number: u16) -> String {
    match address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) if port > 0 => {
            format!("{host}:{}", port.saturating_add(number * PORT_STEP))
        }
        _ => address.to_owned(),
    }
}

/// Creates and locks the directory, and reads or creates the join secret.
fn prepare(folder: &Path) -> Result<(File, PathBuf, String)> {
    let failed = |error: std::io::Error| Error::local("use", folder, &error);
    fs::create_dir_all(folder).map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    let lock = File::options().create(true).append(true).open(folder.join("lock"));
    let lock = lock.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let shown = folder.display();
            return Err(Error::new(
                ErrorCode::Busy,
                format_args!("another `dfs local` is running in {shown}"),
            )
            .hint("stop it, or choose another directory with --data-dir"));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let file = folder.join("join-secret");
    if !file.exists() {
        write_secret(&file).map_err(failed)?;
    }
    let secret = server::join_secret(&file)?;
    Ok((lock, folder, secret))
}

fn write_secret(file: &Path) -> std::io::Result<()> {
    let mut bytes = [0; 32];
    OsRandom.fill(&mut bytes);
    let unfinished = file.with_extension("new");
    let mut options = File::options();
    let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    for byte in bytes {
        write!(out, "{byte:02x}")?;
    }
    writeln!(out)?;
    out.sync_all()?;
    fs::rename(&unfinished, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinator_ports_are_100_apart() {
        for (address, number, wanted) in [
            ("127.0.0.1:7070", 0, "127.0.0.1:7070"),
            ("127.0.0.1:7070", 2, "127.0.0.1:7270"),
            ("[::1]:7070", 1, "[::1]:7170"),
            ("127.0.0.1:0", 2, "127.0.0.1:0"),
        ] {
            assert_eq!(nth_port(address, number), wanted);
        }
    }
}

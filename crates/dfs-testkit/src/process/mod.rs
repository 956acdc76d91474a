//! A cluster of real processes on loopback, to be killed.
//!
//! Every server takes port 0 and says on stdout where it listens; each has a log file, and the
//! ends of all logs are shown when a test panics.

mod server;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dfs_etcd::test_server;

pub use server::{Memory, Place, Server};

/// What a cluster shall look like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many datanodes.
    pub datanodes: usize,
    /// Lines of YAML for the coordinator.
    pub coordinator: String,
    /// Lines of YAML for each datanode.
    pub datanode: String,
    /// Zone of each datanode; none where the list is too short.
    pub zones: Vec<String>,
    /// Flags of each datanode; none where the list is too short.
    pub datanode_flags: Vec<Vec<String>>,
    /// Flags for `dfs coordinator init`.
    pub init: Vec<String>,
    /// Coordinators wait for the call `Admin.Init`, instead of a cluster being made before they
    /// start. Datanodes are for the test to add.
    pub awaits_init: bool,
    /// What every server logs.
    pub log: String,
    /// How many coordinators. Several need metadata that they can share.
    pub coordinators: usize,
    /// Where the metadata lies.
    pub metadata: Metadata,
    /// Folder of each datanode; one in the cluster's folder where the list is too short.
    pub disks: Vec<PathBuf>,
    /// The network of each coordinator; loopback where the list is too short.
    pub coordinator_places: Vec<Place>,
    /// The network of each datanode; loopback where the list is too short.
    pub datanode_places: Vec<Place>,
}

/// Where the metadata of a cluster lies.
#[derive(Debug, Clone, Default)]
pub enum Metadata {
    /// In a store of redb in the cluster's folder, or in an etcd of the cluster's own when
    /// `DFS_TEST_METADATA` is `etcd`: for tests to which it makes no difference.
    #[default]
    Any,
    /// In a store of redb in the cluster's folder.
    Own,
    /// In a store of redb in this folder.
    Folder(PathBuf),
    /// Where this URL says.
    Url(String),
}

impl Default for Settings {
    /// Three datanodes that are judged quickly.
    fn default() -> Self {
        Self {
            datanodes: 3,
            coordinator:
                "heartbeat_interval_ms: 100\nsuspect_after_ms: 1000\nlost_after_ms: 3000\n"
                    .to_owned(),
            datanode: String::new(),
            zones: Vec::new(),
            datanode_flags: Vec::new(),
            init: Vec::new(),
            awaits_init: false,
            log: "info".to_owned(),
            coordinators: 1,
            metadata: Metadata::Any,
            disks: Vec::new(),
            coordinator_places: Vec::new(),
            datanode_places: Vec::new(),
        }
    }
}

/// Coordinators and datanodes, each a process of its own, in a temporary folder.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    folder: tempfile::TempDir,
    settings: Settings,
    /// The first coordinator, which is the only one in most tests.
    pub coordinator: Server,
    /// The other coordinators.
    pub further_coordinators: Vec<Server>,
    /// The datanodes.
    pub datanodes: Vec<Server>,
    /// Goes after those who use it.
    _etcd: Option<test_server::Cluster>,
}

/// Whether the suite runs on etcd this time.
fn is_on_etcd() -> bool {
    match std::env::var("DFS_TEST_METADATA") {
        Err(_) => false,
        Ok(engine) if engine == "redb" => false,
        Ok(engine) if engine == "etcd" => true,
        Ok(engine) => panic!("DFS_TEST_METADATA is {engine:?}; there are redb and etcd"),
    }
}

/// One member. The caller may be in a runtime, which cannot wait for another one.
fn start_etcd() -> test_server::Cluster {
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test_server::Cluster::start(1))
    };
    std::thread::scope(|scope| scope.spawn(start).join()).expect("etcd starts")
}

impl Cluster {
    /// Starts a cluster of `binary`, which is `dfs`, and waits until all nodes are active, unless
    /// it waits itself.
    pub fn start(binary: impl Into<PathBuf>, settings: Settings) -> Self {
        let binary = binary.into();
        let folder = tempfile::Builder::new().prefix("dfs-test-").tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(at("join-secret"), "a secret of this test").expect("a secret");
        let config = format!("{}\n", settings.coordinator);
        fs::write(at("coordinator.yaml"), config).expect("a configuration");
        fs::write(at("datanode.yaml"), format!("{}\n", settings.datanode)).expect("another");
        let etcd = match settings.metadata {
            Metadata::Any if is_on_etcd() => Some(start_etcd()),
            _ => None,
        };
        let metadata = match &settings.metadata {
            Metadata::Any if let Some(etcd) = &etcd => format!("etcd://{}/dfs", etcd.authority()),
            Metadata::Any | Metadata::Own => format!("redb://{}", at("metadata")),
            Metadata::Folder(folder) => format!("redb://{}", folder.display()),
            Metadata::Url(url) => url.clone(),
        };
        if !settings.awaits_init {
            let init = Command::new(&binary)
                .args(["coordinator", "init", "--metadata", &metadata])
                .args(&settings.init)
                .output()
                .expect("the binary starts");
            assert!(init.status.success(), "init: {}", String::from_utf8_lossy(&init.stderr));
        }
        let (coordinators, datanodes) = (settings.coordinators, settings.datanodes);
        let mut described = (0..coordinators.max(1))
            .map(|index| coordinator_at(index, &metadata, folder.path(), &settings));
        let coordinator = described.next().expect("there is one at least");
        let further_coordinators = described.collect();
        let mut cluster = Self {
            binary,
            folder,
            settings,
            coordinator,
            further_coordinators,
            datanodes: Vec::new(),
            _etcd: etcd,
        };
        for index in 0..coordinators.max(1) {
            cluster.start_coordinator_at(index);
        }
        if cluster.settings.awaits_init {
            return cluster;
        }
        for _ in 0..datanodes {
            cluster.add_datanode();
        }
        cluster.wait_for_active(datanodes);
        cluster
    }

    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the disk of a datanode lies.
    pub fn disk(&self, index: usize) -> PathBuf {
        let in_folder = || self.folder.path().join(format!("datanode-{index}"));
        self.settings.disks.get(index).cloned().unwrap_or_else(in_folder)
    }

    /// All coordinators.
    pub fn coordinators(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.coordinator).chain(&self.further_coordinators)
    }

    /// One of the coordinators, the first of which is 0.
    pub fn coordinator_at(&mut self, index: usize) -> &mut Server {
        match index.checked_sub(1) {
            None => &mut self.coordinator,
            Some(index) => &mut self.further_coordinators[index],
        }
    }

    /// Starts the coordinator, on the port it had before.
    pub fn start_coordinator(&mut self) {
        self.start_coordinator_at(0);
    }

    /// Starts one of the coordinators, on the port it had before.
    pub fn start_coordinator_at(&mut self, index: usize) {
        let binary = self.binary.clone();
        let coordinator = self.coordinator_at(index);
        coordinator.start(&binary);
        coordinator.keep_address();
    }

    /// Starts a further datanode.
    pub fn add_datanode(&mut self) {
        let index = self.datanodes.len();
        let server = self.datanode_at(index, &self.disk(index));
        self.datanodes.push(server);
        self.start_datanode(index);
    }

    /// Describes a datanode on some folder, without starting it.
    pub fn datanode_at(&self, index: usize, disk: &Path) -> Server {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let mut args = [
            "datanode",
            "--data-dir",
            &disk.display().to_string(),
            "--config",
            &at("datanode.yaml"),
            "--join-secret-file",
            &at("join-secret"),
            "--coordinator",
            &self.coordinator_urls().join(","),
            "--log",
            &self.settings.log,
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(zone) = self.settings.zones.get(index) {
            args.extend(["--zone".to_owned(), zone.clone()]);
        }
        args.extend(self.settings.datanode_flags.get(index).cloned().unwrap_or_default());
        let place = self.settings.datanode_places.get(index).cloned();
        args.extend(listening(place.as_ref()));
        let log = self.folder.path().join(format!("datanode-{index}.log"));
        Server::new(format!("datanode-{index}"), args, log, place)
    }

    /// Starts a datanode that is down, on another port.
    pub fn start_datanode(&mut self, index: usize) {
        self.datanodes[index].start(&self.binary);
    }

    /// Starts a server described by [`Self::datanode_at`].
    pub fn start_server(&self, server: &mut Server) {
        server.start(&self.binary);
    }

    /// `http://host:port` of the first coordinator, also while it is down.
    pub fn coordinator_url(&self) -> String {
        format!("http://{}", self.coordinator.listen())
    }

    /// The same of all coordinators.
    pub fn coordinator_urls(&self) -> Vec<String> {
        self.coordinators().map(|server| format!("http://{}", server.listen())).collect()
    }

    /// Runs `dfs` with these arguments against this cluster, to its end.
    pub fn dfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// A `dfs` command against this cluster, not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        let coordinators = self.coordinator_urls().join(",");
        command.args(args).stdin(Stdio::null()).env("DFS_COORDINATOR", coordinators);
        command
    }

    /// Runs `dfs` and expects it to succeed; gives its stdout.
    pub fn dfs_ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.dfs(args);
        assert!(
            output.status.success(),
            "dfs exited with {:?}: {}",
            output.status.code(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The document of `dfs status --json`.
    pub fn status(&self) -> Option<serde_json::Value> {
        let output = self.dfs(["status", "--json", "--timeout", "5"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
    }

    /// Waits until so many datanodes are active.
    pub fn wait_for_active(&self, count: usize) {
        let mut seen = None;
        let are_active = wait_until(Duration::from_secs(30), || {
            seen = self.status();
            let nodes = seen.as_ref().and_then(|status| status["nodes"].as_array());
            nodes.is_some_and(|nodes| {
                nodes.iter().filter(|node| node["state"] == "active").count() >= count
            })
        });
        assert!(are_active, "{count} datanodes were not active in time: {seen:?}");
    }

    /// Waits until every chunk has all its replicas again.
    pub fn wait_for_full_replication(&self, within: Duration) {
        let mut seen = None;
        let is_full = wait_until(within, || {
            seen = self.status();
            seen.as_ref().is_some_and(|status| {
                let replication = &status["replication"];
                replication["is_known"] == true
                    && replication["under_replicated"] == 0
                    && replication["missing"] == 0
                    && replication["bad_replicas"] == 0
            })
        });
        assert!(is_full, "not fully replicated within {within:?}: {seen:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut servers: Vec<_> = self.datanodes.iter_mut().collect();
        servers.push(&mut self.coordinator);
        servers.extend(&mut self.further_coordinators);
        for server in servers {
            server.kill();
            if std::thread::panicking() {
                let log = server.log();
                let lines: Vec<_> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(30)..].join("\n");
                eprintln!("--- end of the log of {}\n{end}", server.name);
            }
        }
    }
}

/// Describes a coordinator.
fn coordinator_at(index: usize, metadata: &str, folder: &Path, settings: &Settings) -> Server {
    let at = |name: &str| folder.join(name).display().to_string();
    let args = [
        "coordinator",
        "--metadata",
        metadata,
        "--config",
        &at("coordinator.yaml"),
        "--join-secret-file",
        &at("join-secret"),
        "--log",
        &settings.log,
    ];
    let place = settings.coordinator_places.get(index).cloned();
    let waits = settings.awaits_init.then(|| "--await-init".to_owned());
    let args = args.map(str::to_owned).into_iter().chain(listening(place.as_ref())).chain(waits);
    let name = if index == 0 { "coordinator".to_owned() } else { format!("coordinator-{index}") };
    let log = folder.join(format!("{name}.log"));
    Server::new(name, args.collect(), log, place)
}

/// Where a server shall listen.
fn listening(place: Option<&Place>) -> Vec<String> {
    let address = place.map_or("127.0.0.1", |place| &place.address);
    let mut flags: Vec<_> = ["--listen", "--http-listen"]
        .into_iter()
        .flat_map(|flag| [flag.to_owned(), format!("{address}:0")])
        .collect();
    // Plaintext beyond loopback is to be spelled out.
    flags.extend(place.map(|_| "--insecure".to_owned()));
    flags
}

/// A field of what the kernel tells of a process, in bytes; `None` once the process has ended.
fn status_field(child: &Child, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
}

/// Runs a command that must succeed in time; gives the highest resident size it had, in bytes
/// (VmHWM).
pub fn peak_memory_of(command: &mut Command, within: Duration) -> u64 {
    let mut child = command.spawn().expect("the binary starts");
    let (mut peak, mut ended) = (0, None);
    let has_ended = wait_until(within, || {
        peak = peak.max(status_field(&child, "VmHWM:").unwrap_or(0));
        ended = child.try_wait().expect("it is a child of ours");
        ended.is_some()
    });
    if !has_ended {
        drop(child.kill());
    }
    assert!(ended.is_some_and(|status| status.success()), "{command:?} ended with {ended:?}");
    peak
}

/// Looks again and again until `is_done`, or until the time is up; says which.
pub fn wait_until(within: Duration, mut is_done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if is_done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        // Between two looks at another process there is nothing to wait on.
        #[expect(clippy::disallowed_methods, reason = "polls a condition with a deadline")]
        std::thread::sleep(Duration::from_millis(20));
    }
}

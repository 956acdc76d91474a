//! A cluster of real processes on loopback, to be killed.
//!
//! Every server listens on port 0 and prints its address to stdout; each has a log file, and the
//! ends of all logs are shown when a test panics.

mod power;
mod server;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dfs_etcd::test_server;

pub use power::PowerDisk;
pub use server::{Memory, Place, Server};

/// Settings of a cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of datanodes.
    pub datanodes: usize,
    /// Lines of YAML for the coordinator.
    pub coordinator: String,
    /// Lines of YAML for each datanode.
    pub datanode: String,
    /// Zone of each datanode; none beyond the list.
    pub zones: Vec<String>,
    /// Flags of each datanode; none beyond the list.
    pub datanode_flags: Vec<Vec<String>>,
    /// Flags for `dfs coordinator init`.
    pub init: Vec<String>,
    /// True if coordinators wait for the call `Admin.Init`, instead of the cluster being created
    /// before they start. The test adds the datanodes.
    pub awaits_init: bool,
    /// Log level of every server.
    pub log: String,
    /// Number of coordinators. Several require shared metadata.
    pub coordinators: usize,
    /// Location of the metadata.
    pub metadata: Metadata,
    /// Directory of each datanode; one in the cluster's directory beyond the list.
    pub disks: Vec<PathBuf>,
    /// The network of each coordinator; loopback beyond the list.
    pub coordinator_places: Vec<Place>,
    /// The network of each datanode; loopback beyond the list.
    pub datanode_places: Vec<Place>,
}

/// Location of the metadata of a cluster.
#[derive(Debug, Clone, Default)]
pub enum Metadata {
    /// In a redb store in the cluster's directory, or in an etcd of the cluster if
    /// `DFS_TEST_METADATA` is `etcd`: for tests that work with either.
    #[default]
    Any,
    /// In a redb store in the cluster's directory.
    Own,
    /// In a redb store in this directory.
    Folder(PathBuf),
    /// At this URL.
    Url(String),
}

impl Default for Settings {
    /// Returns settings of three datanodes with short timeouts.
    fn default() -> Self {
        Self {
            datanodes: 3,
            coordinator:
                "heartbeat_interval_ms: 100\nsuspect_after_ms: 1000\nlost_after_ms: 3000\n\
                 confirm_clock_ms: 500\n"
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

/// Coordinators and datanodes, each a separate process, in a temporary directory.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    folder: tempfile::TempDir,
    settings: Settings,
    /// The first coordinator, the only one in most tests.
    pub coordinator: Server,
    /// The other coordinators.
    pub further_coordinators: Vec<Server>,
    /// The datanodes.
    pub datanodes: Vec<Server>,
    /// Dropped after its users.
    _etcd: Option<test_server::Cluster>,
}

/// Returns true if the suite runs on etcd.
fn is_on_etcd() -> bool {
    match std::env::var("DFS_TEST_METADATA") {
        Err(_) => false,
        Ok(engine) if engine == "redb" => false,
        Ok(engine) if engine == "etcd" => true,
        Ok(engine) => panic!("DFS_TEST_METADATA is {engine:?}; expected redb or etcd"),
    }
}

/// Starts one member. The caller may be in a runtime, which cannot block on another one.
fn start_etcd() -> test_server::Cluster {
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test_server::Cluster::start(1))
    };
    std::thread::scope(|scope| scope.spawn(start).join()).expect("etcd starts")
}

impl Cluster {
    /// Starts a cluster of `binary`, which is `dfs`, and waits until all nodes are active, unless
    /// it awaits init.
    pub fn start(binary: impl Into<PathBuf>, settings: Settings) -> Self {
        let binary = binary.into();
        let folder =
            tempfile::Builder::new().prefix("dfs-test-").tempdir().expect("a temporary directory");
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
        let coordinator = described.next().expect("at least one coordinator");
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

    /// Returns the temporary directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the directory of a datanode's disk.
    pub fn disk(&self, index: usize) -> PathBuf {
        let in_folder = || self.folder.path().join(format!("datanode-{index}"));
        self.settings.disks.get(index).cloned().unwrap_or_else(in_folder)
    }

    /// Returns all coordinators.
    pub fn coordinators(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.coordinator).chain(&self.further_coordinators)
    }

    /// Returns a coordinator, counted from 0.
    pub fn coordinator_at(&mut self, index: usize) -> &mut Server {
        match index.checked_sub(1) {
            None => &mut self.coordinator,
            Some(index) => &mut self.further_coordinators[index],
        }
    }

    /// Starts the coordinator, on its previous port.
    pub fn start_coordinator(&mut self) {
        self.start_coordinator_at(0);
    }

    /// Starts one of the coordinators, on its previous port.
    pub fn start_coordinator_at(&mut self, index: usize) {
        let binary = self.binary.clone();
        let coordinator = self.coordinator_at(index);
        coordinator.start(&binary);
        coordinator.keep_address();
    }

    /// Starts another datanode.
    pub fn add_datanode(&mut self) {
        let index = self.datanodes.len();
        let server = self.datanode_at(index, &self.disk(index));
        self.datanodes.push(server);
        self.start_datanode(index);
    }

    /// Describes a datanode on any directory, without starting it.
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

    /// Starts a stopped datanode, on another port.
    pub fn start_datanode(&mut self, index: usize) {
        self.datanodes[index].start(&self.binary);
    }

    /// Starts a server described by [`Self::datanode_at`].
    pub fn start_server(&self, server: &mut Server) {
        server.start(&self.binary);
    }

    /// Returns the `http://host:port` of the first coordinator, even while it is down.
    pub fn coordinator_url(&self) -> String {
        format!("http://{}", self.coordinator.listen())
    }

    /// Returns the URLs of all coordinators.
    pub fn coordinator_urls(&self) -> Vec<String> {
        self.coordinators().map(|server| format!("http://{}", server.listen())).collect()
    }

    /// Runs `dfs` with these arguments against this cluster, to its end.
    pub fn dfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// Returns a `dfs` command against this cluster, not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        // Tests may have been started in the background, where interrupts are ignored.
        let mut command = Command::new("env");
        command.arg("--default-signal=HUP,INT,TERM").arg(&self.binary);
        let coordinators = self.coordinator_urls().join(",");
        command.args(args).stdin(Stdio::null()).env("DFS_COORDINATOR", coordinators);
        command
    }

    /// Runs `dfs` and expects success; returns its stdout.
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

    /// Returns the document of `dfs status --json`.
    pub fn status(&self) -> Option<serde_json::Value> {
        let output = self.dfs(["status", "--json", "--timeout", "5s"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
    }

    /// Waits until `count` datanodes are active.
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

    /// Waits until every chunk has all its replicas.
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

/// Returns the listen flags of a server.
fn listening(place: Option<&Place>) -> Vec<String> {
    let address = place.map_or("127.0.0.1", |place| &place.address);
    let mut flags: Vec<_> = ["--listen", "--http-listen"]
        .into_iter()
        .flat_map(|flag| [flag.to_owned(), format!("{address}:0")])
        .collect();
    // Plaintext beyond loopback must be allowed explicitly.
    flags.extend(place.map(|_| "--insecure".to_owned()));
    flags
}

/// Returns a field of the kernel's status of a process, in bytes; `None` once the process has
/// ended.
fn status_field(child: &Child, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
}

/// Runs a command that must succeed in time; returns its peak resident size in bytes (VmHWM).
pub fn peak_memory_of(command: &mut Command, within: Duration) -> u64 {
    let mut child = command.spawn().expect("the binary starts");
    let (mut peak, mut ended) = (0, None);
    let has_ended = wait_until(within, || {
        peak = peak.max(status_field(&child, "VmHWM:").unwrap_or(0));
        ended = child.try_wait().expect("it is a child process");
        ended.is_some()
    });
    if !has_ended {
        drop(child.kill());
    }
    assert!(ended.is_some_and(|status| status.success()), "{command:?} ended with {ended:?}");
    peak
}

/// Polls until `is_done`, or until the time is up; returns the result.
pub fn wait_until(within: Duration, mut is_done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if is_done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        // There is no event of another process to wait for.
        #[expect(clippy::disallowed_methods, reason = "polls a condition with a deadline")]
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! A cluster of real processes on loopback, to be killed.
//!
//! Every server takes port 0 and says on stdout where it listens; each has a log file, and the
//! ends of all logs are shown when a test panics.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How long a server may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One server process.
#[derive(Debug)]
pub struct Server {
    name: String,
    args: Vec<String>,
    log: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    grpc: String,
    http: String,
}

impl Server {
    /// `host:port` of the gRPC service; empty while it does not run.
    pub fn address(&self) -> &str {
        self.running.as_ref().map_or("", |running| &running.grpc)
    }

    /// `host:port` of the HTTP service; empty while it does not run.
    pub fn http_address(&self) -> &str {
        self.running.as_ref().map_or("", |running| &running.http)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.child.kill());
            drop(running.child.wait());
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            let pid = Pid::from_child(&running.child);
            rustix::process::kill_process(pid, signal).expect("the process runs");
        }
    }

    /// SIGTERM, and waits for the end; gives what it exited with.
    pub fn terminate(&mut self, within: Duration) -> Option<i32> {
        self.signal(Signal::TERM);
        let mut running = self.running.take()?;
        let mut status = None;
        let ended = wait_until(within, || {
            status = running.child.try_wait().ok().flatten();
            status.is_some()
        });
        if !ended {
            drop(running.child.kill());
            panic!("{} did not end within {within:?} of SIGTERM", self.name);
        }
        status.and_then(|status| status.code())
    }

    /// The highest resident size it ever had, in bytes (VmHWM).
    pub fn peak_memory(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    /// Its resident size now, in bytes (VmRSS).
    pub fn memory(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    fn status_field(&self, field: &str) -> u64 {
        let running = self.running.as_ref().expect("the process runs");
        status_field(&running.child, field).expect("the kernel tells about a running process")
    }

    /// Fetches a page of the HTTP service: status code and body.
    pub fn http_get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http_address()).expect("the HTTP port is open");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .expect("the request goes out");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer comes");
        let status = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.expect("a status line"), body.to_owned())
    }

    /// The sum of a metric over all its labels that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, page) = self.http_get("/metrics");
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(key, _)| key.split('{').next() == Some(name) && key.contains(label))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }

    fn start(&mut self, binary: &Path) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut child = Command::new(binary)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .env_remove("DFS_COORDINATOR")
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (ready, is_ready) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The line has the form `ready ROLE grpc ADDRESS http ADDRESS`.
                let words: Vec<_> = line.split_whitespace().collect();
                if let ["ready", _, "grpc", grpc, "http", http] = words[..] {
                    drop(ready.try_send((grpc.to_owned(), http.to_owned())));
                }
            }
        });
        if let Ok((grpc, http)) = is_ready.recv_timeout(READY_WITHIN) {
            self.running = Some(Running { child, grpc, http });
        } else {
            drop(child.kill());
            drop(child.wait());
            panic!("{} was not ready within {READY_WITHIN:?}; its log:\n{}", self.name, self.log());
        }
    }
}

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
    /// What every server logs.
    pub log: String,
    /// Folder of the metadata; one in the cluster's folder when not set.
    pub metadata: Option<PathBuf>,
    /// Folder of each datanode; one in the cluster's folder where the list is too short.
    pub disks: Vec<PathBuf>,
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
            log: "info".to_owned(),
            metadata: None,
            disks: Vec::new(),
        }
    }
}

/// A coordinator and datanodes, each a process of its own, in a temporary folder.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    folder: tempfile::TempDir,
    settings: Settings,
    /// The coordinator.
    pub coordinator: Server,
    /// The datanodes.
    pub datanodes: Vec<Server>,
}

impl Cluster {
    /// Starts a cluster of `binary`, which is `dfs`, and waits until all nodes are active.
    pub fn start(binary: impl Into<PathBuf>, settings: Settings) -> Self {
        let binary = binary.into();
        let folder = tempfile::Builder::new().prefix("dfs-test-").tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(at("join-secret"), "a secret of this test").expect("a secret");
        let config = format!("{}\n", settings.coordinator);
        fs::write(at("coordinator.yaml"), config).expect("a configuration");
        fs::write(at("datanode.yaml"), format!("{}\n", settings.datanode)).expect("another");
        let metadata = settings.metadata.as_ref();
        let metadata = metadata.map_or_else(|| at("metadata"), |path| path.display().to_string());
        let metadata = format!("redb://{metadata}");
        let init = Command::new(&binary)
            .args(["coordinator", "init", "--metadata", &metadata])
            .args(&settings.init)
            .output()
            .expect("the binary starts");
        assert!(init.status.success(), "init: {}", String::from_utf8_lossy(&init.stderr));
        let args = [
            "coordinator",
            "--metadata",
            &metadata,
            "--config",
            &at("coordinator.yaml"),
            "--join-secret-file",
            &at("join-secret"),
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--log",
            &settings.log,
        ];
        let coordinator = Server {
            name: "coordinator".to_owned(),
            args: args.map(str::to_owned).to_vec(),
            log: folder.path().join("coordinator.log"),
            running: None,
        };
        let count = settings.datanodes;
        let mut cluster = Self { binary, folder, settings, coordinator, datanodes: Vec::new() };
        cluster.start_coordinator();
        for _ in 0..count {
            cluster.add_datanode();
        }
        cluster.wait_for_active(count);
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

    /// Starts the coordinator, on the port it had before.
    pub fn start_coordinator(&mut self) {
        self.coordinator.start(&self.binary);
        let address = self.coordinator.address().to_owned();
        let listen = self.coordinator.args.iter().position(|arg| arg == "--listen");
        if let Some(value) = listen.and_then(|flag| self.coordinator.args.get_mut(flag + 1)) {
            *value = address;
        }
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
            &format!("http://{}", self.coordinator.address()),
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--log",
            &self.settings.log,
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(zone) = self.settings.zones.get(index) {
            args.extend(["--zone".to_owned(), zone.clone()]);
        }
        args.extend(self.settings.datanode_flags.get(index).cloned().unwrap_or_default());
        Server {
            name: format!("datanode-{index}"),
            args,
            log: self.folder.path().join(format!("datanode-{index}.log")),
            running: None,
        }
    }

    /// Starts a datanode that is down, on another port.
    pub fn start_datanode(&mut self, index: usize) {
        self.datanodes[index].start(&self.binary);
    }

    /// Starts a server described by [`Self::datanode_at`].
    pub fn start_server(&self, server: &mut Server) {
        server.start(&self.binary);
    }

    /// `http://host:port` of the coordinator, also while it is down.
    pub fn coordinator_url(&self) -> String {
        let listen = self.coordinator.args.iter().position(|arg| arg == "--listen");
        let address = listen.and_then(|flag| self.coordinator.args.get(flag + 1));
        format!("http://{}", address.map_or("", String::as_str))
    }

    /// Runs `dfs` with these arguments against this cluster, to its end.
    pub fn dfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// A `dfs` command against this cluster, not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null()).env("DFS_COORDINATOR", self.coordinator_url());
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

    /// Waits until every chunk has all its copies again.
    pub fn wait_for_full_replication(&self, within: Duration) {
        let mut seen = None;
        let is_full = wait_until(within, || {
            seen = self.status();
            seen.as_ref().is_some_and(|status| {
                let replication = &status["replication"];
                replication["is_known"] == true
                    && replication["under_replicated"] == 0
                    && replication["missing"] == 0
                    && replication["bad_copies"] == 0
            })
        });
        assert!(is_full, "not fully replicated within {within:?}: {seen:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut servers: Vec<_> = self.datanodes.iter_mut().collect();
        servers.push(&mut self.coordinator);
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

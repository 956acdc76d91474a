//! One server process.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::{status_field, wait_until};

/// Time limit for a server to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One server process.
#[derive(Debug)]
pub struct Server {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) log: PathBuf,
    /// The machine it runs on, if it has a separate one.
    pub(super) place: Option<Place>,
    running: Option<Running>,
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All resident memory (VmRSS).
    pub total: u64,
    /// Resident memory without pages of files, such as the executable, which processes share and
    /// the kernel can reclaim (RssAnon).
    pub own: u64,
}

/// The network of a server: a kernel namespace, and an address in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the namespace in `ip netns`.
    pub namespace: String,
    /// Listen address in it.
    pub address: String,
}

impl Place {
    /// Returns a command that runs `program` in this network, and is killed with the thread that
    /// starts it: a process that outlives a test would keep its network. `ip netns exec` would have
    /// mounts of its own, and keep disks of other tests in use.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }
}

#[derive(Debug)]
struct Running {
    child: Child,
    grpc: String,
    http: String,
}

impl Server {
    /// Returns the `host:port` of the gRPC service; empty while stopped.
    pub fn address(&self) -> &str {
        self.running.as_ref().map_or("", |running| &running.grpc)
    }

    /// Returns the `host:port` of the HTTP service; empty while stopped.
    pub fn http_address(&self) -> &str {
        self.running.as_ref().map_or("", |running| &running.http)
    }

    /// Returns true if it runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Returns everything logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends SIGKILL, and waits for the end.
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

    /// Sends SIGTERM, and waits for the end; returns the exit code.
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

    /// Returns its peak resident size in bytes (VmHWM).
    pub fn peak_memory(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    /// Returns its current memory.
    pub fn memory(&self) -> Memory {
        Memory { total: self.status_field("VmRSS:"), own: self.status_field("RssAnon:") }
    }

    fn status_field(&self, field: &str) -> u64 {
        let running = self.running.as_ref().expect("the process runs");
        status_field(&running.child, field).expect("the kernel has a status of the process")
    }

    /// Fetches a page of the HTTP service: status code and body.
    pub fn http_get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http_address()).expect("the HTTP port is open");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a response");
        let status = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.expect("a status line"), body.to_owned())
    }

    /// Returns the sum of a metric over all its labels that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, page) = self.http_get("/metrics");
        page.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(key, _)| key.split('{').next() == Some(name) && key.contains(label))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }

    pub(super) fn new(name: String, args: Vec<String>, log: PathBuf, place: Option<Place>) -> Self {
        Self { name, args, log, place, running: None }
    }

    /// Returns the configured listen address.
    pub(super) fn listen(&self) -> &str {
        let flag = self.args.iter().position(|arg| arg == "--listen");
        flag.and_then(|flag| self.args.get(flag + 1)).map_or("", String::as_str)
    }

    /// Makes it listen on its current address when it is started again.
    pub(super) fn keep_address(&mut self) {
        let address = self.address().to_owned();
        let flag = self.args.iter().position(|arg| arg == "--listen");
        if let Some(value) = flag.and_then(|flag| self.args.get_mut(flag + 1)) {
            *value = address;
        }
    }

    pub(super) fn start(&mut self, binary: &Path) {
        assert!(self.running.is_none(), "{} is already running", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let here = || Command::new(binary);
        let mut command = self.place.as_ref().map_or_else(here, |place| place.command(binary));
        let mut child = command
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

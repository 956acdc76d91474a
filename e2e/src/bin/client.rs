//! Program in the pods of the tests: creates and checks files, and generates load.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use dfs_client::{Client, GetOptions, PutOptions, PutSource};
use dfs_e2e::Report;
use dfs_types::DfsPath;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

/// File that tells a load to stop.
const STOP: &str = "/tmp/stop";
/// Files that a load overwrites repeatedly.
const SLOTS: u64 = 32;
/// Number of writers, and of readers.
const WRITERS: u64 = 2;
/// Pause between two operations of each.
const PAUSE: Duration = Duration::from_millis(200);
/// Time limit of one operation.
const DEADLINE: Duration = Duration::from_mins(1);
/// Maximum length of a file.
const LENGTH_MAX: u64 = 2 << 20;
/// Maximum number of failures reported.
const FAILURES_MAX: usize = 20;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Wait to be deleted
    Idle,
    /// Create a file
    Make { path: PathBuf, length: u64, seed: u64 },
    /// Fail unless a file has these bytes
    Check { path: PathBuf, length: u64, seed: u64 },
    /// Fail unless the address accepts connections
    Connect { address: String },
    /// Write and read until stopped, and print a report
    Load,
    /// Stop the load
    Stop,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Args::parse().action {
        Action::Idle => idle().await,
        Action::Make { path, length, seed } => make(&path, length, seed),
        Action::Check { path, length, seed } => check(&path, length, seed),
        Action::Connect { address } => connect(&address),
        Action::Load => Load::new()?.run().await,
        Action::Stop => Ok(fs::write(STOP, "")?),
    }
}

/// Waits for SIGTERM, whose default action does not apply to the first process of a container.
async fn idle() -> Result<()> {
    let kind = tokio::signal::unix::SignalKind::terminate();
    tokio::signal::unix::signal(kind)?.recv().await;
    Ok(())
}

/// Returns bytes determined by the seed, in blocks.
fn blocks(length: u64, seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = length;
    std::iter::from_fn(move || {
        let mut block = vec![0; usize::try_from(left.min(1 << 20)).ok().filter(|size| *size > 0)?];
        random.fill_bytes(&mut block);
        left -= block.len() as u64;
        Some(block)
    })
}

fn make(path: &Path, length: u64, seed: u64) -> Result<()> {
    let mut file = fs::File::create(path)?;
    for block in blocks(length, seed) {
        file.write_all(&block)?;
    }
    Ok(())
}

fn check(path: &Path, length: u64, seed: u64) -> Result<()> {
    let mut file = fs::File::open(path)?;
    ensure!(file.metadata()?.len() == length, "wrong length {}", file.metadata()?.len());
    for expected in blocks(length, seed) {
        let mut found = vec![0; expected.len()];
        file.read_exact(&mut found)?;
        ensure!(found == expected, "wrong content");
    }
    Ok(())
}

fn connect(address: &str) -> Result<()> {
    let mut last = None;
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(3)) {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()).into())
}

/// Files under load. Version `v` of slot `s` has bytes determined by both; a reader must find a
/// version no older than the last one acknowledged when the read started.
struct Load {
    client: Client,
    slots: Vec<Slot>,
    report: Mutex<Report>,
}

#[derive(Default)]
struct Slot {
    acknowledged: AtomicU64,
    started: AtomicU64,
}

impl Load {
    fn new() -> Result<Arc<Self>> {
        let coordinator = std::env::var("DFS_COORDINATOR").context("DFS_COORDINATOR is not set")?;
        let client = Client::builder().coordinator(coordinator).deadline(DEADLINE);
        Ok(Arc::new(Self {
            client: client.connect_lazy()?,
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            report: Mutex::default(),
        }))
    }

    async fn run(self: Arc<Self>) -> Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let (one, other) = (self.clone(), self.clone());
            tasks.spawn(async move { one.write_on(writer).await });
            tasks.spawn(async move { other.read_on(writer).await });
        }
        while let Some(result) = tasks.join_next().await {
            result??;
        }
        for slot in 0..SLOTS {
            self.read(slot).await?;
        }
        println!("{}", serde_json::to_string(&*self.report())?);
        Ok(())
    }

    /// Each writer has separate slots.
    async fn write_on(&self, writer: u64) -> Result<()> {
        let mut random = StdRng::seed_from_u64(writer);
        let slots = SLOTS / WRITERS;
        while !Path::new(STOP).exists() {
            let slot = writer + WRITERS * random.random_range(0..slots);
            self.write(slot).await?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn read_on(&self, reader: u64) -> Result<()> {
        let mut random = StdRng::seed_from_u64(1_000 + reader);
        while !Path::new(STOP).exists() {
            self.read(random.random_range(0..SLOTS)).await?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn write(&self, slot: u64) -> Result<()> {
        let state = &self.slots[slot as usize];
        let version = state.started.fetch_add(1, Ordering::SeqCst) + 1;
        let start = Instant::now();
        let bytes = content(slot, version);
        let path = path(slot)?;
        let put = self.client.put(&path, PutSource::bytes(bytes), PutOptions::default());
        match put.await {
            Ok(_) => {
                state.acknowledged.store(version, Ordering::SeqCst);
                let mut report = self.report();
                report.writes += 1;
                report.slowest_ms = report.slowest_ms.max(start.elapsed().as_millis() as u64);
            }
            Err(error) => self.failed(format!("write {slot} version {version}: {error}")),
        }
        Ok(())
    }

    async fn read(&self, slot: u64) -> Result<()> {
        let state = &self.slots[slot as usize];
        let at_least = state.acknowledged.load(Ordering::SeqCst);
        if at_least == 0 {
            return Ok(());
        }
        let start = Instant::now();
        let bytes = match self.fetch(slot).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.failed(format!("read {slot}: {error}"));
                return Ok(());
            }
        };
        let newest = state.started.load(Ordering::SeqCst);
        let version =
            bytes.get(..8).map(|head| u64::from_be_bytes(head.try_into().unwrap_or_default()));
        match version {
            Some(version)
                if (at_least..=newest).contains(&version) && bytes == content(slot, version) =>
            {
                let mut report = self.report();
                report.reads += 1;
                report.slowest_ms = report.slowest_ms.max(start.elapsed().as_millis() as u64);
            }
            other => self.lost(format!(
                "slot {slot}: read version {other:?}, expected {at_least} to {newest} with its content"
            )),
        }
        Ok(())
    }

    async fn fetch(&self, slot: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = self.client.get(&path(slot)?, GetOptions::default()).await?;
        while let Some(block) = reader.next().await? {
            bytes.extend_from_slice(&block);
            if bytes.len() as u64 > LENGTH_MAX + 8 {
                bail!("the file is longer than {} bytes", LENGTH_MAX + 8);
            }
        }
        Ok(bytes)
    }

    fn failed(&self, what: String) {
        eprintln!("{what}");
        let mut report = self.report();
        if report.failed.len() < FAILURES_MAX {
            report.failed.push(what);
        }
    }

    fn lost(&self, what: String) {
        eprintln!("{what}");
        let mut report = self.report();
        if report.lost.len() < FAILURES_MAX {
            report.lost.push(what);
        }
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(slot: u64) -> Result<DfsPath> {
    Ok(DfsPath::new(format!("/load-{slot}"))?)
}

/// Returns the version, followed by bytes determined by it; short files are more frequent.
fn content(slot: u64, version: u64) -> Vec<u8> {
    let seed = slot << 32 | version;
    let mut random = StdRng::seed_from_u64(seed);
    let length = LENGTH_MAX >> random.random_range(0..12);
    let mut bytes = version.to_be_bytes().to_vec();
    blocks(random.random_range(0..=length), seed).for_each(|block| bytes.extend(block));
    bytes
}

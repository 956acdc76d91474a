//! Repair of lost datanodes: its speed, its growth with what was lost, and what users notice.
//!
//! Four datanodes, so that each chunk of a lost one has exactly one place to go. The first node is
//! lost with a quarter of the chunks in the cluster, the second with all of them, both while repair
//! is unlimited; the third while users put and get files and repair has its default rate. A new
//! node replaces each lost one.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dfs_client::{Client, ClusterStatus, WorkerChange};
use tokio::runtime::Runtime;

use super::load::{LARGE, SMALL, Users, check_files, p99, put_files};
use crate::process::{Cluster, Settings, wait_until};

/// Time within which everything must be repaired.
const REPAIRED_WITHIN: Duration = Duration::from_mins(20);
/// Time within which a user's turn must end.
const TURN_WITHIN: Duration = Duration::from_secs(30);
const NODES: usize = 4;

/// Parameters of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `dfs`.
    pub binary: PathBuf,
    /// Number of small files of one chunk each, a multiple of 4.
    pub small: usize,
    /// Number of large chunks, a multiple of 4.
    pub large: usize,
    /// Time for which the users are watched before the loss.
    pub quiet: Duration,
}

/// One lost node.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Number of chunks that it held.
    pub chunks: u64,
    /// Number of bytes of its disk that they took.
    pub bytes: u64,
    /// Time from the moment at which its loss was noticed until all chunks were repaired.
    pub repair: Duration,
    /// Time to copy the same files on the same disk and sync them.
    pub copy: Duration,
}

/// Result of a run.
#[derive(Debug)]
pub struct Report {
    /// Small files put per second, 16 at a time.
    pub creates_per_second: f64,
    /// A quarter of the chunks, without a limit.
    pub quarter: Loss,
    /// All chunks, without a limit.
    pub whole: Loss,
    /// All chunks, at the default rate, beside users.
    pub beside_users: Loss,
    /// Time within which 99 of 100 turns of a user ended, before the loss.
    pub p99_before: Duration,
    /// The same, during repair.
    pub p99_during: Duration,
}

impl Report {
    /// Returns the time for a chunk of the large loss, relative to that of the small one: 1 if
    /// repair takes time in proportion to what was lost.
    pub fn growth(&self) -> f64 {
        let per_chunk = |loss: Loss| loss.repair.as_secs_f64() / loss.chunks as f64;
        per_chunk(self.whole) / per_chunk(self.quarter)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.repair.as_secs_f64();
        write!(
            f,
            "{} chunks, {} MiB: {seconds:.1} s, {:.0} chunks/s, {:.0} MiB/s; copying them takes {:.1} s",
            self.chunks,
            self.bytes >> 20,
            self.chunks as f64 / seconds,
            self.bytes as f64 / f64::from(1 << 20) / seconds,
            self.copy.as_secs_f64(),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.p99_during.as_secs_f64() / self.p99_before.as_secs_f64();
        writeln!(f, "small files put: {:.0}/s", self.creates_per_second)?;
        writeln!(f, "unlimited, a quarter: {}", self.quarter)?;
        writeln!(f, "unlimited, all: {}", self.whole)?;
        writeln!(f, "time for a chunk, all to a quarter: {:.2}", self.growth())?;
        writeln!(f, "default rate beside users: {}", self.beside_users)?;
        write!(
            f,
            "p99 of a put and a get: {:.1} ms before, {:.1} ms during repair ({ratio:.2})",
            self.p99_before.as_secs_f64() * 1e3,
            self.p99_during.as_secs_f64() * 1e3,
        )
    }
}

/// Runs on a thread that is not part of a runtime. Fails if a call of a user does, if a file comes
/// back different, or if repair does not complete.
pub fn run(options: &Options) -> Result<Report, String> {
    let mut drill = Drill::start(options.binary.clone());
    let (small, large) = (options.small, options.large);
    let quarter = drill.put(0..small / 4, 0..large / 4)?;
    drill.set_rate(WorkerChange::Rate(None))?;
    let first = drill.lose(0)?;
    drill.replace();
    drill.put(small / 4..small, large / 4..large)?;
    let second = drill.lose(1)?;
    drill.replace();
    drill.set_rate(WorkerChange::DefaultRate)?;

    let users = Users::start(drill.runtime.handle(), &drill.client);
    let watched = Instant::now();
    wait_until(options.quiet, || watched.elapsed() >= options.quiet);
    let before = users.take_waits();
    let third = drill.lose_noticed(2, || drop(users.take_waits()));
    // Repair may take less time than a turn.
    let mut during = users.take_waits();
    wait_until(TURN_WITHIN, || {
        during.extend(users.take_waits());
        !during.is_empty()
    });
    let users = drill.runtime.block_on(users.stop());
    let third = third?;
    users?;
    for (numbers, length) in [(0..small, SMALL), (0..large, LARGE)] {
        let checked = drill.runtime.block_on(check_files(&drill.client, numbers, length));
        let different = checked?;
        if !different.is_empty() {
            return Err(format!("files came back different: {different:?}"));
        }
    }
    Ok(Report {
        creates_per_second: (small / 4) as f64 / quarter.as_secs_f64(),
        quarter: first,
        whole: second,
        beside_users: third,
        p99_before: p99(before).ok_or("no user ended a turn before the loss")?,
        p99_during: p99(during).ok_or("no user ended a turn during repair")?,
    })
}

struct Drill {
    cluster: Cluster,
    runtime: Runtime,
    client: Client,
}

impl Drill {
    fn start(binary: PathBuf) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let settings = Settings { datanodes: NODES, ..Settings::default() };
        let cluster = Cluster::start(binary, settings);
        let client = {
            let _guard = runtime.enter();
            Client::builder().coordinator(cluster.coordinator_url()).connect_lazy()
        };
        Self { cluster, runtime, client: client.expect("a valid address") }
    }

    /// Puts files. Returns the time that the small ones took.
    fn put(&self, small: Range<usize>, large: Range<usize>) -> Result<Duration, String> {
        let put = async {
            let started = Instant::now();
            put_files(&self.client, small, SMALL).await?;
            let took = started.elapsed();
            put_files(&self.client, large, LARGE).await?;
            Ok(took)
        };
        let put: Result<_, dfs_client::Error> = self.runtime.block_on(put);
        put.map_err(|error| format!("putting the files: {error}"))
    }

    fn set_rate(&self, rate: WorkerChange) -> Result<(), String> {
        let set = async {
            let admin = self.client.admin();
            let cluster = admin.status().await?.cluster;
            admin.set_worker(cluster, "repair", rate).await
        };
        self.runtime.block_on(set).map(drop).map_err(|error| format!("setting the rate: {error}"))
    }

    fn status(&self) -> Option<ClusterStatus> {
        self.runtime.block_on(self.client.admin().status()).ok()
    }

    fn lose(&mut self, node: usize) -> Result<Loss, String> {
        self.lose_noticed(node, || ())
    }

    /// Kills a datanode and waits until all its chunks are repaired. Calls `noticed` when repair
    /// begins.
    fn lose_noticed(&mut self, node: usize, noticed: impl FnOnce()) -> Result<Loss, String> {
        let address = self.cluster.datanodes[node].address().to_owned();
        let status = self.status().ok_or("the status is not available")?;
        let held = status.nodes.iter().find(|held| held.address == address);
        let chunks = held.ok_or("the node is not in the status")?.chunks();
        self.cluster.datanodes[node].kill();
        let degraded = || self.status().and_then(|status| status.replication);
        let is_noticed = wait_until(REPAIRED_WITHIN, || {
            degraded().is_some_and(|replication| replication.under_replicated > 0)
        });
        if !is_noticed {
            return Err("the loss of a node was not noticed".to_owned());
        }
        noticed();
        let started = Instant::now();
        let mut seen = None;
        let is_repaired = wait_until(REPAIRED_WITHIN, || {
            seen = degraded();
            seen.as_ref().is_some_and(|seen| seen.under_replicated + seen.missing == 0)
        });
        let repair = started.elapsed();
        if !is_repaired {
            return Err(format!("not repaired within {REPAIRED_WITHIN:?}: {seen:?}"));
        }
        let disk = self.cluster.disk(node);
        let copied = copy(&disk, &self.cluster.folder().join("copied"));
        let (bytes, copy) =
            copied.map_err(|error| format!("copying {}: {error}", disk.display()))?;
        fs::remove_dir_all(&disk).map_err(|error| format!("{}: {error}", disk.display()))?;
        Ok(Loss { chunks, bytes, repair, copy })
    }

    /// Starts an empty datanode.
    fn replace(&mut self) {
        self.cluster.add_datanode();
        self.cluster.wait_for_active(NODES);
    }
}

/// Copies the files below a directory, syncs and deletes the copies. Returns their allocated bytes
/// and the time until they were synced.
fn copy(from: &Path, to: &Path) -> std::io::Result<(u64, Duration)> {
    fn below(from: &Path, to: &Path) -> std::io::Result<u64> {
        fs::create_dir_all(to)?;
        let mut bytes = 0;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let to = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                bytes += below(&entry.path(), &to)?;
            } else {
                fs::copy(entry.path(), &to)?;
                bytes += entry.metadata()?.blocks() * 512;
            }
        }
        Ok(bytes)
    }
    let started = Instant::now();
    let bytes = below(from, to)?;
    rustix::fs::syncfs(fs::File::open(to)?)?;
    let took = started.elapsed();
    fs::remove_dir_all(to)?;
    Ok((bytes, took))
}

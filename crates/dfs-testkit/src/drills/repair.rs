//! Repair of lost datanodes: its speed, its growth with what was lost, and what users notice.
//!
//! Four datanodes, so that each chunk of a lost one has exactly one place to go. In the first cluster
//! nothing limits the rate of repair: a node is lost with a quarter of the chunks in the cluster,
//! another with all of them, and then a third one comes and goes while repair is paused. In the second
//! cluster, with the default rates, a node is lost while users put and get files.

use std::fmt;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dfs_client::{Client, ClusterStatus, NodeStatus, WorkerChange};
use dfs_types::NodeState;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::load::{LARGE, SMALL, Users, check_files, p99, put_files};
use super::synced_writes::{self, SyncedWrites};
use crate::process::{Cluster, Settings, wait_until};

/// Time within which everything must be repaired.
const REPAIRED_WITHIN: Duration = Duration::from_mins(20);
/// Time within which the loss or return of a node must be noticed.
const NOTICED_WITHIN: Duration = Duration::from_mins(2);
/// Time within which a user's turn must end.
const TURN_WITHIN: Duration = Duration::from_secs(30);
/// Longest pause of repair.
const PAUSE: Duration = Duration::from_hours(1);
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
    /// Number of changes of the lost disks, a multiple of 2.
    pub changes: usize,
    /// Time for which the users are watched before the loss.
    pub quiet: Duration,
}

/// One lost node.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Number of chunks that it held.
    pub chunks: u64,
    /// Number of bytes of its disk that they took.
    pub held: u64,
    /// Number of bytes of the replicas that repair built.
    pub bytes: u64,
    /// Time from the moment at which it was lost and that was counted until all chunks were repaired.
    pub time: Duration,
}

/// Result of a run.
#[derive(Debug)]
pub struct Report {
    /// Small files put per second, 16 at a time.
    pub creates_per_second: f64,
    /// Bytes of large files put per second, 2 at a time.
    pub put_bytes_per_second: f64,
    /// Files written and synced on the same disk, before the large loss.
    pub disk: SyncedWrites,
    /// A quarter of the chunks, without a limit.
    pub quarter: Loss,
    /// All chunks, without a limit.
    pub whole: Loss,
    /// Number of changes of the lost disks.
    pub changes: usize,
    /// Turns over all chunks that these took.
    pub turns: f64,
    /// All chunks, at the default rate, beside users.
    pub beside_users: Loss,
    /// Time within which 99 of 100 turns of a user ended, before the loss.
    pub p99_before: Duration,
    /// The same, during repair.
    pub p99_during: Duration,
}

impl Report {
    /// Returns the time of writing and syncing a file for each chunk of the large loss.
    fn disk_time(&self) -> Duration {
        let large = self.whole.bytes / LARGE as u64;
        self.disk.time_of(self.whole.chunks - large, large)
    }

    /// Returns the time for a chunk of the large loss, relative to that of the small one: 1 if
    /// repair takes time in proportion to what was lost.
    pub fn growth(&self) -> f64 {
        let per_chunk = |loss: Loss| loss.time.as_secs_f64() / loss.chunks as f64;
        per_chunk(self.whole) / per_chunk(self.quarter)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        write!(
            f,
            "{} chunks, {} MiB on disk, {} MiB built: {seconds:.1} s, {:.0} chunks/s, {:.0} MiB/s",
            self.chunks,
            self.held >> 20,
            self.bytes >> 20,
            self.chunks as f64 / seconds,
            self.bytes as f64 / f64::from(1 << 20) / seconds,
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.p99_during.as_secs_f64() / self.p99_before.as_secs_f64();
        let mib = self.put_bytes_per_second / f64::from(1 << 20);
        writeln!(
            f,
            "put: {:.0} small files/s, {mib:.0} MiB/s of large ones",
            self.creates_per_second
        )?;
        writeln!(f, "writing and syncing files: {}", self.disk)?;
        writeln!(f, "unlimited, a quarter: {}", self.quarter)?;
        writeln!(f, "unlimited, all: {}", self.whole)?;
        let share = self.disk_time().as_secs_f64() / self.whole.time.as_secs_f64();
        writeln!(f, "speed of the latter, relative to the disk: {share:.2}")?;
        writeln!(f, "time for a chunk, all to a quarter: {:.2}", self.growth())?;
        writeln!(f, "{} changes of the lost disks: {:.1} turns", self.changes, self.turns)?;
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
    let (small, large) = (options.small, options.large);
    let mut drill = Drill::start(options, "move_bytes_per_second: 0\n");
    drill.set(WorkerChange::Rate(None))?;
    drill.put(0..small / 4, 0..large / 4)?;
    let quarter = drill.lose(0)?;
    drill.replace();
    let (creates, puts) = drill.put(small / 4..small, large / 4..large)?;
    let disk = synced_writes::measure(&drill.cluster.folder().join("synced"), small, large);
    let disk = disk.map_err(|error| format!("writing and syncing files: {error}"))?;
    let whole = drill.lose(1)?;
    drill.replace();
    let turns = drill.change(2, options.changes)?;
    drill.check(small, large)?;
    drop(drill);

    let mut drill = Drill::start(options, "");
    drill.put(0..small, 0..large)?;
    let users = Users::start(drill.runtime.handle(), &drill.client);
    let watched = Instant::now();
    wait_until(options.quiet, || watched.elapsed() >= options.quiet);
    let before = users.take_waits();
    let lost = drill.lose_noticed(0, || drop(users.take_waits()));
    // Repair may take less time than a turn.
    let mut during = users.take_waits();
    wait_until(TURN_WITHIN, || {
        during.extend(users.take_waits());
        !during.is_empty()
    });
    let users = drill.runtime.block_on(users.stop());
    let beside_users = lost?;
    users?;
    drill.check(small, large)?;
    Ok(Report {
        creates_per_second: (small - small / 4) as f64 / creates.as_secs_f64(),
        put_bytes_per_second: ((large - large / 4) * LARGE) as f64 / puts.as_secs_f64(),
        disk,
        quarter,
        whole,
        changes: options.changes,
        turns,
        beside_users,
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
    fn start(options: &Options, datanode: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let settings =
            Settings { datanodes: NODES, datanode: datanode.to_owned(), ..Settings::default() };
        let cluster = Cluster::start(options.binary.clone(), settings);
        let client = {
            let _guard = runtime.enter();
            Client::builder().coordinator(cluster.coordinator_url()).connect_lazy()
        };
        Self { cluster, runtime, client: client.expect("a valid address") }
    }

    /// Puts files. Returns the times that the small and the large ones took.
    fn put(
        &self,
        small: Range<usize>,
        large: Range<usize>,
    ) -> Result<(Duration, Duration), String> {
        let put = async {
            let started = Instant::now();
            put_files(&self.client, small, SMALL).await?;
            let took = started.elapsed();
            put_files(&self.client, large, LARGE).await?;
            Ok((took, started.elapsed().saturating_sub(took)))
        };
        let put: Result<_, dfs_client::Error> = self.runtime.block_on(put);
        put.map_err(|error| format!("putting the files: {error}"))
    }

    /// Fails unless all files are what was put.
    fn check(&self, small: usize, large: usize) -> Result<(), String> {
        for (numbers, length) in [(0..small, SMALL), (0..large, LARGE)] {
            let checked = self.runtime.block_on(check_files(&self.client, numbers, length));
            let different = checked?;
            if !different.is_empty() {
                return Err(format!("files came back different: {different:?}"));
            }
        }
        Ok(())
    }

    /// Changes the settings of repair.
    fn set(&self, change: WorkerChange) -> Result<(), String> {
        let set = async {
            let admin = self.client.admin();
            let cluster = admin.status().await?.cluster;
            admin.set_worker(cluster, "repair", change).await
        };
        self.runtime.block_on(set).map(drop).map_err(|error| format!("setting repair: {error}"))
    }

    fn status(&self) -> Option<ClusterStatus> {
        self.runtime.block_on(self.client.admin().status()).ok()
    }

    /// Waits until a datanode is, or is not, lost, and all chunks are counted accordingly.
    fn wait_until_lost(&self, address: &str, is_lost: bool) -> Result<(), String> {
        let is_it = wait_until(NOTICED_WITHIN, || {
            self.status().is_some_and(|status| {
                let node = status.nodes.iter().find(|node| node.address == address);
                let is_as_expected = |node: &NodeStatus| {
                    if is_lost {
                        node.state == NodeState::Lost
                    } else {
                        node.state == NodeState::Active
                    }
                };
                node.is_some_and(is_as_expected) && status.replication.is_some()
            })
        });
        let change = if is_lost { "loss" } else { "return" };
        is_it.then_some(()).ok_or_else(|| format!("the {change} of a node was not noticed"))
    }

    fn wait_until_repaired(&self) -> Result<(), String> {
        let mut seen = None;
        let is_repaired = wait_until(REPAIRED_WITHIN, || {
            seen = self.status().and_then(|status| status.replication);
            seen.as_ref().is_some_and(|seen| seen.under_replicated + seen.missing == 0)
        });
        is_repaired.then_some(()).ok_or_else(|| format!("not repaired in time: {seen:?}"))
    }

    fn moved_bytes(&self) -> u64 {
        let name = "dfs_coordinator_moved_bytes_total";
        self.cluster.coordinator.metric(name, "reason=\"repair\"") as u64
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
        let before = self.moved_bytes();
        self.cluster.datanodes[node].kill();
        self.wait_until_lost(&address, true)?;
        noticed();
        let started = Instant::now();
        self.wait_until_repaired()?;
        let time = started.elapsed();
        let disk = self.cluster.disk(node);
        let held = allocated(&disk).map_err(|error| format!("{}: {error}", disk.display()))?;
        let removed = std::fs::remove_dir_all(&disk);
        removed.map_err(|error| format!("{}: {error}", disk.display()))?;
        Ok(Loss { chunks, held, bytes: self.moved_bytes() - before, time })
    }

    /// Starts an empty datanode.
    fn replace(&mut self) {
        self.cluster.add_datanode();
        self.cluster.wait_for_active(NODES);
    }

    /// Lets a datanode be lost and return while repair is paused. Returns how many turns over all
    /// chunks repair took meanwhile.
    fn change(&self, node: usize, times: usize) -> Result<f64, String> {
        self.set(WorkerChange::Pause(PAUSE))?;
        let status = self.status().and_then(|status| status.replication);
        let chunks = status.ok_or("the status is not available")?.chunks;
        let swept = || self.cluster.coordinator.metric("dfs_coordinator_swept_chunks_total", "");
        let before = swept();
        let datanode = &self.cluster.datanodes[node];
        for _ in 0..times / 2 {
            datanode.signal(Signal::STOP);
            let lost = self.wait_until_lost(datanode.address(), true);
            datanode.signal(Signal::CONT);
            lost?;
            self.wait_until_lost(datanode.address(), false)?;
        }
        let turns = (swept() - before) / chunks.max(1) as f64;
        self.set(WorkerChange::Resume)?;
        Ok(turns)
    }
}

/// Returns the bytes that the files below a directory take.
fn allocated(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            allocated(&entry.path())?
        } else {
            entry.metadata()?.blocks() * 512
        };
    }
    Ok(bytes)
}

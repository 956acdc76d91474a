//! Power cuts at random moments, of a datanode, the coordinator or all machines, while users change
//! files and repair, rebalance, drain and garbage collection have work.
//!
//! After each cut every file has a content that its user may expect: one whose write was
//! acknowledged, or, where the outcome of calls is unknown, one of theirs. At the end all replicas are
//! read. As root.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_client::{Client, DeleteOptions, GetOptions, PutOptions, PutSource, RenameOptions};
use dfs_types::{DfsPath, ErrorCode, Random, SeededRandom};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::expected_files::{Content, ExpectedFiles};
use crate::process::{Cluster, Metadata, PowerDisk, Settings, wait_until};

/// Machines: a coordinator and four datanodes, with a disk each.
pub const MACHINES: usize = 5;
const DATANODES: usize = MACHINES - 1;
const USERS: usize = 6;
/// Files of each user.
const FILES: u64 = 24;
/// One cut in so many is one of all machines.
const ALL_ONE_IN: u64 = 4;
/// Milliseconds of a round before its cut.
const ROUND: std::ops::Range<u64> = 300..2_500;
/// Deadline of a call, so that users go on soon after a cut.
const DEADLINE: Duration = Duration::from_secs(3);
/// Deadline of a call that is to succeed.
const CHECKED_WITHIN: Duration = Duration::from_mins(1);
/// Time within which all chunks have all their replicas at the end.
const REPAIRED_WITHIN: Duration = Duration::from_mins(3);

/// Parameters of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `dfs`.
    pub binary: PathBuf,
    /// Number of cuts.
    pub rounds: usize,
    /// Determines what is cut and what users do.
    pub seed: u64,
}

/// Result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Cuts of a datanode, the coordinator, and of all machines.
    pub cuts: [usize; 3],
    /// Calls that were acknowledged.
    pub acknowledged: u64,
    /// Calls that failed, or whose outcome is unknown.
    pub failed: u64,
    /// Files read after the cuts.
    pub checked: u64,
    /// Replicas built or moved by repair, drains and rebalance.
    pub moved: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [datanode, coordinator, all] = self.cuts;
        let Self { acknowledged, failed, checked, moved, .. } = self;
        write!(
            f,
            "power cuts: {datanode} of a datanode, {coordinator} of the coordinator, {all} of all \
             machines; {acknowledged} calls acknowledged, {failed} failed or unknown; {checked} \
             files read afterwards, none lost or different; {moved} replicas moved by workers"
        )
    }
}

/// Runs on a thread that is not part of a runtime, on [`MACHINES`] disks. Fails if a file is lost or
/// different, if a store does not open by itself, or if the cluster does not recover.
pub fn run(options: &Options, disks: Vec<PowerDisk>) -> Result<Report, String> {
    let mut drill = Drill::start(options, disks);
    let mut report = Report::default();
    let random = SeededRandom::new(options.seed);
    for round in 0..options.rounds {
        let failed = |what: String| format!("round {round} of seed {}: {what}", options.seed);
        let users = drill.start_users(options.seed, round as u64);
        drill.keep_workers_busy(round);
        let time = ROUND.start + random.below(ROUND.end - ROUND.start);
        drill.let_run(Duration::from_millis(time));
        let victims = match random.below(ALL_ONE_IN) {
            0 => (0..MACHINES).collect(),
            _ => vec![random.below(MACHINES as u64) as usize],
        };
        report.cuts[match victims[..] {
            [0] => 1,
            [_] => 0,
            _ => 2,
        }] += 1;
        drill.cut_power(&victims).map_err(failed)?;
        drill.stop_users(users).map_err(failed)?;
        report.checked += drill.check().map_err(failed)?;
    }
    drill.finish()?;
    report.acknowledged = drill.calls.acknowledged.load(Ordering::Relaxed);
    report.failed = drill.calls.failed.load(Ordering::Relaxed);
    report.moved = drill.moved();
    Ok(report)
}

/// Numbers of calls.
#[derive(Debug, Default)]
struct Calls {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

struct Drill {
    cluster: Cluster,
    runtime: Runtime,
    expected: Vec<ExpectedFiles>,
    stop: Arc<AtomicBool>,
    calls: Arc<Calls>,
    /// Sum of what workers had moved before their coordinator was last cut.
    moved: u64,
    /// Unmounted after the cluster has ended.
    disks: Vec<PowerDisk>,
}

type User = JoinHandle<Result<ExpectedFiles, String>>;

impl Drill {
    fn start(options: &Options, disks: Vec<PowerDisk>) -> Self {
        let settings = Settings {
            datanodes: DATANODES,
            metadata: Metadata::Folder(disks[0].root().join("metadata")),
            disks: disks[1..].iter().map(|disk| disk.root().join("datanode")).collect(),
            coordinator:
                "heartbeat_interval_ms: 100\nsuspect_after_ms: 1000\nlost_after_ms: 2000\n\
                          confirm_clock_ms: 500\nrestorable_ms: 1000\nreconcile_interval_ms: 5000\n"
                    .to_owned(),
            ..Settings::default()
        };
        Self {
            cluster: Cluster::start(options.binary.clone(), settings),
            runtime: Runtime::new().expect("a runtime"),
            expected: (0..USERS).map(|_| ExpectedFiles::default()).collect(),
            stop: Arc::default(),
            calls: Arc::default(),
            moved: 0,
            disks,
        }
    }

    fn client(&self, deadline: Duration) -> Client {
        let _guard = self.runtime.enter();
        let client = Client::builder().coordinator(self.cluster.coordinator_url());
        client.deadline(deadline).connect_lazy().expect("a valid address")
    }

    fn start_users(&mut self, seed: u64, round: u64) -> Vec<User> {
        self.stop = Arc::default();
        let client = self.client(DEADLINE);
        let user = |(number, expected): (usize, ExpectedFiles)| {
            let random = SeededRandom::new(seed ^ (round << 16) ^ ((number as u64) << 8));
            let (stop, calls) = (self.stop.clone(), self.calls.clone());
            let user = Changes { client: client.clone(), number, expected, calls };
            self.runtime.spawn(user.run(random, stop))
        };
        std::mem::take(&mut self.expected).into_iter().enumerate().map(user).collect()
    }

    fn stop_users(&mut self, users: Vec<User>) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        for user in users {
            let ended = self.runtime.block_on(user).map_err(|error| error.to_string())?;
            self.expected.push(ended?);
        }
        Ok(())
    }

    fn let_run(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    /// Drains one datanode after the other, and takes the drain before back.
    fn keep_workers_busy(&self, round: usize) {
        let Some(status) = self.cluster.status() else { return };
        let mut nodes: Vec<_> = status["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|it| it["id"].as_str())
            .collect();
        nodes.sort_unstable();
        if nodes.is_empty() {
            return;
        }
        // They may fail while the coordinator is cut.
        let (now, before) = (round % nodes.len(), (round + nodes.len() - 1) % nodes.len());
        drop(self.cluster.dfs(["node", "undrain", nodes[before], "--timeout", "3s"]));
        drop(self.cluster.dfs(["node", "drain", nodes[now], "--yes", "--timeout", "3s"]));
    }

    /// Cuts the power of machines, of which 0 is the coordinator, and restores it.
    fn cut_power(&mut self, victims: &[usize]) -> Result<(), String> {
        if victims.contains(&0) {
            self.moved = self.moved();
        }
        let disks = &self.disks;
        std::thread::scope(|scope| {
            let cuts = victims.iter().map(|victim| scope.spawn(move || disks[*victim].cut_power()));
            let cuts: Vec<_> = cuts.collect();
            cuts.into_iter().try_for_each(|cut| cut.join().expect("cuts do not panic"))
        })?;
        for victim in victims {
            match victim.checked_sub(1) {
                None => self.cluster.coordinator.kill(),
                Some(datanode) => self.cluster.datanodes[datanode].kill(),
            }
        }
        for victim in victims {
            self.disks[*victim].restore_power()?;
        }
        for victim in victims {
            match victim.checked_sub(1) {
                None => self.cluster.start_coordinator(),
                Some(datanode) => self.cluster.start_datanode(datanode),
            }
        }
        Ok(())
    }

    /// Reads all files. Returns how many.
    fn check(&self) -> Result<u64, String> {
        let client = self.client(CHECKED_WITHIN);
        let mut checked = 0;
        for (user, expected) in self.expected.iter().enumerate() {
            for (file, possible) in expected.files() {
                let found = self.runtime.block_on(read(&client, user, file));
                let found = found.map_err(|why| format!("{}: {why}", name(user, file)))?;
                expect(user, file, found, possible)?;
                checked += 1;
            }
        }
        Ok(checked)
    }

    /// Waits until all chunks have all their replicas, and reads them all.
    fn finish(&self) -> Result<(), String> {
        let status = self.cluster.status().ok_or("the status is not available")?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        for node in nodes.filter_map(|node| node["id"].as_str()) {
            drop(self.cluster.dfs(["node", "undrain", node]));
        }
        let mut seen = None;
        let is_repaired = wait_until(REPAIRED_WITHIN, || {
            seen = self.cluster.status().map(|status| status["replication"].clone());
            seen.as_ref().is_some_and(|seen| {
                seen["is_known"] == true
                    && ["under_replicated", "missing", "bad_replicas"]
                        .iter()
                        .all(|it| seen[*it] == 0)
            })
        });
        if !is_repaired {
            return Err(format!("not all replicas were restored: {seen:?}"));
        }
        let check = self.cluster.dfs(["fsck", "--read"]);
        if !check.status.success() {
            let said = String::from_utf8_lossy(&check.stdout);
            return Err(format!("`dfs fsck --read` found damage: {said}"));
        }
        self.check().map(drop)
    }

    /// Returns how many replicas workers have moved.
    fn moved(&self) -> u64 {
        let of = |reason: &str| {
            let label = format!("reason=\"{reason}\"");
            self.cluster.coordinator.metric("dfs_coordinator_moves_total", &label) as u64
        };
        self.moved + ["repair", "drain", "rebalance"].map(of).iter().sum::<u64>()
    }
}

/// One user, who changes files until stopped.
struct Changes {
    client: Client,
    number: usize,
    expected: ExpectedFiles,
    calls: Arc<Calls>,
}

impl Changes {
    async fn run(
        mut self,
        random: SeededRandom,
        stop: Arc<AtomicBool>,
    ) -> Result<ExpectedFiles, String> {
        while !stop.load(Ordering::Relaxed) {
            let file = random.below(FILES) as usize;
            let result = match random.below(10) {
                0..6 => self.put(file, &random).await,
                6 | 7 => self.delete(file, random.below(2) == 0).await,
                8 => self.rename(file, random.below(FILES) as usize).await,
                _ => match read(&self.client, self.number, file).await {
                    Ok(found) => {
                        expect(self.number, file, found, &self.expected.possible(file))?;
                        true
                    }
                    Err(_) => false,
                },
            };
            let counter = if result { &self.calls.acknowledged } else { &self.calls.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.expected)
    }

    async fn put(&mut self, file: usize, random: &SeededRandom) -> bool {
        let length = match random.below(8) {
            0 => (1 << 20) + random.below(1 << 20),
            1 => 70_000 + random.below(1 << 18),
            _ => 1 + random.below(20_000),
        };
        // The length is part of it, so that a file that was cut short is different.
        let content = random.below(1 << 40) << 22 | length;
        let source = PutSource::bytes(bytes_of(content));
        let put = self.client.put(&path(self.number, file), source, PutOptions::default()).await;
        let is_put = put.is_ok();
        if put.is_ok() || put.is_err_and(|error| error.is_outcome_unknown()) {
            self.expected.set(file, Some(content), is_put);
        }
        is_put
    }

    async fn delete(&mut self, file: usize, now: bool) -> bool {
        let options = DeleteOptions::default().now(now);
        let deleted = self.client.delete(&path(self.number, file), options).await;
        let is_deleted = match &deleted {
            Ok(()) => true,
            Err(error) if error.is_outcome_unknown() => false,
            Err(_) => return false,
        };
        self.expected.set(file, None, is_deleted);
        is_deleted
    }

    async fn rename(&mut self, from: usize, to: usize) -> bool {
        if from == to {
            return true;
        }
        let (old, new) = (path(self.number, from), path(self.number, to));
        let renamed = self.client.rename(&old, &new, RenameOptions::default()).await;
        let is_renamed = match &renamed {
            Ok(()) => true,
            Err(error) if error.is_outcome_unknown() => false,
            Err(_) => return false,
        };
        self.expected.rename(from, to, is_renamed);
        is_renamed
    }
}

fn name(user: usize, file: usize) -> String {
    format!("/user-{user}-{file}")
}

fn path(user: usize, file: usize) -> DfsPath {
    DfsPath::new(name(user, file)).expect("a valid path")
}

/// Returns the bytes of a content; its length is in its last 22 bits.
fn bytes_of(content: u64) -> Bytes {
    let length = (content & ((1 << 22) - 1)) as usize;
    let words = (0_u64..).map(|word| (content ^ word.rotate_left(40)).to_le_bytes());
    let mut bytes: Vec<u8> = words.take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes.into()
}

/// Reads a file; `None` if there is none.
async fn read(client: &Client, user: usize, file: usize) -> Result<Option<Bytes>, String> {
    let mut reader = match client.get(&path(user, file), GetOptions::default()).await {
        Ok(reader) => reader,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(format!("opening it: {error}")),
    };
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.map_err(|error| format!("reading it: {error}"))?;
    Ok(Some(bytes.into()))
}

/// Fails unless a file has one of the possible contents.
fn expect(
    user: usize,
    file: usize,
    found: Option<Bytes>,
    possible: &BTreeSet<Content>,
) -> Result<(), String> {
    if possible.iter().any(|content| content.map(bytes_of) == found) {
        return Ok(());
    }
    let found = found
        .map_or_else(|| "is gone".to_owned(), |bytes| format!("has {} other bytes", bytes.len()));
    Err(format!("{} {found}; expected one of {possible:?}", name(user, file)))
}

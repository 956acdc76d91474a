//! Garbage collection of many orphans while files are written, overwritten and read.
//!
//! The orphans are sealed chunks of uploads that were never confirmed, as old as two hours. They are
//! written to the disks of the datanodes while these are stopped.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_chunkstore::conformance::{append, content, header, seal_of};
use dfs_chunkstore::{
    ChunkHeader, ChunkStore as _, Config, DiskConfig, DiskStore, OsFs, Pool, StoreError,
};
use dfs_client::{Client, ReplicaCheck};
use dfs_types::{ChunkId, Clock as _, ClusterId, OsRandom, SeededRandom, SystemClock};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Runtime;

use super::load::{SMALL, Users, check_files, put_files};
use crate::process::{Cluster, Settings, wait_until};

/// Age of the orphans: older than any plan that could still be confirmed.
const AGE: Duration = Duration::from_hours(2);
/// Number of files that exist from the beginning to the end.
const FILES: usize = 500;
/// Number of chunks written concurrently to a disk.
const AT_ONCE: usize = 64;
/// Time within which a comparison must end.
const COMPARED_WITHIN: Duration = Duration::from_mins(5);
/// Time within which the chunks of overwritten files must be deleted at the end.
const DELETED_WITHIN: Duration = Duration::from_mins(5);

/// Parameters of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program `dfs`.
    pub binary: PathBuf,
    /// Number of orphans, a multiple of the three datanodes.
    pub orphans: usize,
    /// Time for which users write and collection runs, at least.
    pub time: Duration,
}

/// Result of a run.
#[derive(Debug)]
pub struct Report {
    /// Number of orphans that were deleted.
    pub deleted: u64,
    /// Time from the first comparison until they were deleted.
    pub took: Duration,
    /// Number of comparisons while users wrote.
    pub comparisons: u32,
    /// Number of turns of users, each a put and a get.
    pub turns: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} orphans deleted in {:.1} s; {} comparisons beside {} puts and gets",
            self.deleted,
            self.took.as_secs_f64(),
            self.comparisons,
            self.turns
        )
    }
}

/// Runs on a thread that is not part of a runtime. Fails unless all orphans are deleted, and
/// nothing else.
pub fn run(options: &Options) -> Result<Report, String> {
    let runtime = Runtime::new().expect("a runtime");
    let mut settings = Settings::default();
    settings.coordinator.push_str("orphan_age_ms: 1000\nrestorable_ms: 1000\n");
    let mut cluster = Cluster::start(options.binary.clone(), settings);
    let client = {
        let _guard = runtime.enter();
        Client::builder().coordinator(cluster.coordinator_url()).connect_lazy()
    };
    let client = client.expect("a valid address");
    let failed = |error: dfs_client::Error| error.to_string();
    runtime.block_on(put_files(&client, 0..FILES, SMALL)).map_err(failed)?;
    let id = runtime.block_on(client.admin().status()).map_err(failed)?.cluster;
    let nodes = cluster.datanodes.len();
    for node in 0..nodes {
        cluster.datanodes[node].terminate(Duration::from_secs(20));
        let plan = Orphans { cluster: id, count: options.orphans / nodes, seed: node as u64 };
        let planted = runtime.block_on(plan.plant(cluster.disk(node)));
        planted.map_err(|error| format!("writing orphans: {error}"))?;
        cluster.start_datanode(node);
        cluster.wait_for_active(nodes);
    }

    let users = Users::start(runtime.handle(), &client);
    let began = Instant::now();
    let (mut deleted, mut took, mut comparisons) = (0, Duration::ZERO, 0);
    let expected = options.orphans as u64;
    let collected = loop {
        let found = match runtime.block_on(compare(&client, id)) {
            Ok(found) => found,
            Err(error) => break Err(error),
        };
        if comparisons == 0 && found.orphans != expected {
            break Err(format!("{} of {expected} orphans were found", found.orphans));
        }
        comparisons += 1;
        if found.deleted_orphans > 0 {
            deleted += found.deleted_orphans;
            took = began.elapsed();
        }
        let is_late = began.elapsed() > options.time + COMPARED_WITHIN;
        if is_late || (began.elapsed() >= options.time && found.orphans == 0) {
            break Ok(());
        }
    };
    let turns = users.take_waits().len();
    runtime.block_on(users.stop())?;
    collected?;
    if deleted != expected {
        return Err(format!("{deleted} of {expected} orphans were deleted"));
    }
    let different = runtime.block_on(check_files(&client, 0..FILES, SMALL))?;
    if !different.is_empty() {
        return Err(format!("files came back different: {different:?}"));
    }
    // Every replica on a disk is one of a file.
    let mut seen = (0, 0);
    let are_equal = wait_until(DELETED_WITHIN, || {
        let Ok(status) = runtime.block_on(client.admin().status()) else { return false };
        let named = status.replication.as_ref().map(|replication| replication.chunks);
        let held = status.nodes.iter().map(dfs_client::NodeStatus::chunks).sum::<u64>();
        seen = (named.unwrap_or(0) * u64::from(status.replication_factor), held);
        named.is_some() && seen.0 == seen.1
    });
    if !are_equal {
        let (named, held) = seen;
        return Err(format!("the disks hold {held} replicas, and the records name {named}"));
    }
    Ok(Report { deleted, took, comparisons, turns })
}

/// Compares the disks with the records.
async fn compare(client: &Client, cluster: ClusterId) -> Result<ReplicaCheck, String> {
    let compare = async {
        let admin = client.admin();
        let mut found = admin.check_replicas(cluster).await?;
        while !found.is_done {
            // The coordinator does not announce the end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            found = admin.replica_check(cluster, found.id).await?;
        }
        Ok::<_, dfs_client::Error>(found)
    };
    let found = tokio::time::timeout(COMPARED_WITHIN, compare).await;
    let found = found.map_err(|_| "a comparison did not end".to_owned())?;
    found.map_err(|error| format!("comparing: {error}"))
}

/// Orphans of one disk.
struct Orphans {
    cluster: ClusterId,
    count: usize,
    seed: u64,
}

impl Orphans {
    /// Writes them to the disk of a stopped datanode.
    async fn plant(&self, folder: PathBuf) -> Result<(), StoreError> {
        let mut config = Config::new([]);
        config.disks = vec![DiskConfig { folder, capacity: None }];
        let random = Arc::new(OsRandom);
        let store =
            DiskStore::open(config, Arc::new(OsFs::new()), Pool::threads(AT_ONCE), random).await;
        let store = store.expect("the disk of a stopped datanode opens");
        let random = SeededRandom::new(self.seed);
        let time = SystemClock.now().minus(AGE);
        let chunks: Vec<_> = (0..self.count).map(|_| ChunkId::new(time, &random)).collect();
        let write = async |chunk: ChunkId| {
            let bytes = content(chunk, SMALL);
            let header = ChunkHeader { cluster: self.cluster, ..header(chunk, SMALL) };
            let mut writer = store.create(header).await?;
            append(&mut *writer, &bytes).await?;
            writer.seal(seal_of(&bytes)).await
        };
        let written = stream::iter(chunks).map(write).buffer_unordered(AT_ONCE);
        written.try_for_each(async |_| Ok(())).await?;
        store.close(Duration::from_secs(20)).await;
        Ok(())
    }
}

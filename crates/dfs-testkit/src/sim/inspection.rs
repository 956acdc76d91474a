//! What the disks of a cluster hold durably: what it would find if all machines lost power now.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use dfs_chunkstore::sim::SimFs;
use dfs_chunkstore::{ChunkStore as _, Config, DiskStore, FullSpeed, Pool};
use dfs_engines::Execution;
use dfs_engines::redb::{Options, RedbEngine};
use dfs_metadata::Committer;
use dfs_metadata::namespace::{self, Chunk, Disks, Namespace, Replica};
use dfs_types::{ChunkId, Level, NodeId, ReplicaRef, Scope, SeededRandom};

use super::damage::DISKS;
use super::disk::FsBackend;
use super::host::{METADATA, Machine};
use super::time::SimClock;

type Failed = Box<dyn Error + Send + Sync>;

/// Records of a page.
const PAGE: usize = 1_000;

/// Chunk records, and the replicas on the disks of all datanodes.
pub(super) struct Durable {
    records: BTreeMap<ChunkId, Chunk>,
    disks: Arc<Disks>,
    /// Names of the machines of nodes.
    hosts: BTreeMap<NodeId, String>,
    /// Replicas, and whether they are intact.
    held: BTreeMap<ReplicaRef, bool>,
}

impl Durable {
    /// Reads copies of the disks of all machines, of which the first is the coordinator. `None` as
    /// long as there is no cluster.
    pub(super) fn read(machines: &[Arc<Machine>]) -> Result<Option<Self>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let read = async {
            let Some((coordinator, datanodes)) = machines.split_first() else { return Ok(None) };
            let Some(mut durable) = read_records(&coordinator.disks).await? else {
                return Ok(None);
            };
            for datanode in datanodes {
                read_replicas(&datanode.disks, &mut durable.held).await?;
            }
            Ok(Some(durable))
        };
        let read: Result<_, Failed> = runtime.map_err(|error| error.to_string())?.block_on(read);
        read.map_err(|error| format!("the disks cannot be inspected: {error}"))
    }

    /// Returns all chunk records, tombstones included.
    pub(super) fn records(&self) -> impl Iterator<Item = (ChunkId, &Chunk)> {
        self.records.iter().map(|(chunk, record)| (*chunk, record))
    }

    /// Returns the chunks that something refers to.
    pub(super) fn live(&self) -> impl Iterator<Item = (ChunkId, &Chunk)> {
        self.records().filter(|(_, record)| !record.is_tombstone())
    }

    /// Returns whether the chunk of a replica is deleted, but still has a record.
    pub(super) fn is_deleted(&self, replica: &ReplicaRef) -> bool {
        self.records.get(&replica.chunk).is_some_and(Chunk::is_tombstone)
    }

    /// Returns the replicas on all disks.
    pub(super) fn held(&self) -> impl Iterator<Item = &ReplicaRef> {
        self.held.keys()
    }

    /// Returns the replicas that records name.
    pub(super) fn named(&self) -> BTreeSet<ReplicaRef> {
        let named = self.records().flat_map(|(chunk, record)| {
            record.replicas.iter().filter_map(move |replica| self.name(chunk, replica))
        });
        named.collect()
    }

    /// Returns whether a named replica is on its disk, and every block of it is right.
    pub(super) fn is_intact(&self, chunk: ChunkId, replica: &Replica) -> bool {
        let held = self.name(chunk, replica).and_then(|name| self.held.get(&name));
        held.is_some_and(|is_intact| *is_intact)
    }

    /// Returns the node of a named replica.
    pub(super) fn node(&self, replica: &Replica) -> Option<NodeId> {
        self.disks.node(replica.disk)
    }

    /// Returns the machine of a named replica.
    pub(super) fn host(&self, replica: &Replica) -> Option<&str> {
        Some(&**self.hosts.get(&self.node(replica)?)?)
    }

    fn name(&self, chunk: ChunkId, replica: &Replica) -> Option<ReplicaRef> {
        let Replica { part, stamp, .. } = *replica;
        let disk = self.disks.get(replica.disk)?.disk;
        Some(ReplicaRef { chunk, part, disk, stamp })
    }
}

/// Returns a copy of disks after a power failure.
fn after_power_failure(disks: &SimFs) -> SimFs {
    let copy = disks.fork();
    copy.heal();
    copy.crash();
    copy
}

/// Reads the records of chunks and disks; `None` as long as there is no cluster.
async fn read_records(disks: &SimFs) -> Result<Option<Durable>, Failed> {
    let backend = FsBackend::open(&after_power_failure(disks), Path::new(METADATA))?;
    let options = Options { cache_bytes: 1 << 20, execution: Execution::Inline };
    let engine = Arc::new(RedbEngine::with_backend(backend, options).await?);
    let (committer, _) = Committer::new(engine.clone(), std::future::pending());
    let (clock, random) = (Arc::new(SimClock::default()), Arc::new(SeededRandom::new(0)));
    let components = namespace::Components { engine, committer, clock, random };
    let options = namespace::Options { level: Level::REHEARSAL, ..namespace::Options::default() };
    let namespace = match Namespace::open(components, options, None).await {
        Err(dfs_metadata::Error::NotInitialised) => return Ok(None),
        opened => opened?,
    };
    let (mut records, mut after) = (BTreeMap::new(), None);
    loop {
        let page = namespace.scan_chunks(Scope::internal(), after.as_ref(), PAGE).await?;
        records.extend(page.chunks);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let disks = namespace.disks_of(records.values()).await?;
    let nodes = namespace.cluster_state(Scope::internal()).await?.nodes.nodes;
    let hosts = nodes.into_iter().map(|(node, record)| (node, record.host)).collect();
    Ok(Some(Durable { records, disks, hosts, held: BTreeMap::new() }))
}

/// Reads and verifies all replicas of a datanode.
async fn read_replicas(disks: &SimFs, held: &mut BTreeMap<ReplicaRef, bool>) -> Result<(), Failed> {
    let mut config = Config::new(DISKS.map(Into::into));
    config.level = Level::REHEARSAL;
    let fs = Arc::new(after_power_failure(disks));
    let random = Arc::new(SeededRandom::new(0));
    // Disks that cannot be opened hold nothing.
    let Ok(store) = DiskStore::open(config, fs, Pool::inline(), random).await else {
        return Ok(());
    };
    let mut after = None;
    loop {
        let page = store.list(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.chunk);
        for found in page {
            let verified = store.verify(found.replica(), &FullSpeed).await;
            held.insert(found.replica(), matches!(verified, Ok(None)));
        }
    }
}

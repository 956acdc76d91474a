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

/// Reads the disks of a cluster repeatedly; what has not changed is not read again.
#[derive(Default)]
pub(super) struct Inspector {
    coordinator: Seen<Option<Arc<Records>>>,
    datanodes: BTreeMap<&'static str, Seen<Arc<Replicas>>>,
}

/// What was read at a version of the disks; `None` before the first time.
#[derive(Default)]
struct Seen<T>(Option<(u64, T)>);

impl<T: Clone> Seen<T> {
    /// Returns what the disks hold, which `read` reads if they have changed.
    async fn current(
        &mut self,
        disks: &SimFs,
        read: impl AsyncFnOnce(SimFs) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let version = disks.version();
        match &self.0 {
            Some((seen, content)) if *seen == version => Ok(content.clone()),
            _ => {
                let content = read(after_power_failure(disks)).await?;
                self.0 = Some((version, content.clone()));
                Ok(content)
            }
        }
    }
}

impl Inspector {
    /// Reads copies of the disks of all machines, of which the first is the coordinator. `None` as
    /// long as there is no cluster.
    pub(super) fn read(&mut self, machines: &[Arc<Machine>]) -> Result<Option<Durable>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let read = async {
            let Some((coordinator, datanodes)) = machines.split_first() else { return Ok(None) };
            let records = self.coordinator.current(&coordinator.disks, read_records).await?;
            let Some(records) = records else { return Ok(None) };
            let mut held = Vec::new();
            for datanode in datanodes {
                let seen = self.datanodes.entry(datanode.name).or_default();
                held.push(seen.current(&datanode.disks, read_replicas).await?);
            }
            Ok(Some(Durable { records, held }))
        };
        let read: Result<_, Failed> = runtime.map_err(|error| error.to_string())?.block_on(read);
        read.map_err(|error| format!("the disks cannot be inspected: {error}"))
    }
}

/// Replicas of a datanode, and whether they are intact.
type Replicas = BTreeMap<ReplicaRef, bool>;

struct Records {
    chunks: BTreeMap<ChunkId, Chunk>,
    disks: Arc<Disks>,
    /// Names of the machines of nodes.
    hosts: BTreeMap<NodeId, String>,
}

/// Chunk records, and the replicas on the disks of all datanodes.
pub(super) struct Durable {
    records: Arc<Records>,
    held: Vec<Arc<Replicas>>,
}

impl Durable {
    /// Returns all chunk records, tombstones included.
    pub(super) fn records(&self) -> impl Iterator<Item = (ChunkId, &Chunk)> {
        self.records.chunks.iter().map(|(chunk, record)| (*chunk, record))
    }

    /// Returns the chunks that something refers to.
    pub(super) fn live(&self) -> impl Iterator<Item = (ChunkId, &Chunk)> {
        self.records().filter(|(_, record)| !record.is_tombstone())
    }

    /// Returns whether the chunk of a replica is deleted, but still has a record.
    pub(super) fn is_deleted(&self, replica: &ReplicaRef) -> bool {
        self.records.chunks.get(&replica.chunk).is_some_and(Chunk::is_tombstone)
    }

    /// Returns the replicas on all disks.
    pub(super) fn held(&self) -> impl Iterator<Item = &ReplicaRef> {
        self.held.iter().flat_map(|held| held.keys())
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
        let name = self.name(chunk, replica);
        name.is_some_and(|name| self.held.iter().any(|held| held.get(&name) == Some(&true)))
    }

    /// Returns the node of a named replica.
    pub(super) fn node(&self, replica: &Replica) -> Option<NodeId> {
        self.records.disks.node(replica.disk)
    }

    /// Returns the machine of a named replica.
    pub(super) fn host(&self, replica: &Replica) -> Option<&str> {
        Some(&**self.records.hosts.get(&self.node(replica)?)?)
    }

    fn name(&self, chunk: ChunkId, replica: &Replica) -> Option<ReplicaRef> {
        let Replica { part, stamp, .. } = *replica;
        let disk = self.records.disks.get(replica.disk)?.disk;
        Some(ReplicaRef { chunk, part, disk, stamp })
    }
}

/// Returns a copy of disks after a power failure.
pub(super) fn after_power_failure(disks: &SimFs) -> SimFs {
    let copy = disks.fork();
    copy.heal();
    // Opening a store writes to it.
    copy.set_capacity(1 << 40);
    copy.crash();
    copy
}

/// Reads the records of chunks and disks; `None` as long as there is no cluster.
async fn read_records(disks: SimFs) -> Result<Option<Arc<Records>>, Failed> {
    let backend = FsBackend::open(&disks, Path::new(METADATA))?;
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
    let (mut chunks, mut after) = (BTreeMap::new(), None);
    loop {
        let page = namespace.scan_chunks(Scope::internal(), after.as_ref(), PAGE).await?;
        chunks.extend(page.chunks);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let disks = namespace.disks_of(chunks.values()).await?;
    let nodes = namespace.cluster_state(Scope::internal()).await?.nodes.nodes;
    let hosts = nodes.into_iter().map(|(node, record)| (node, record.host)).collect();
    Ok(Some(Arc::new(Records { chunks, disks, hosts })))
}

/// Reads and verifies all replicas of a datanode.
async fn read_replicas(disks: SimFs) -> Result<Arc<Replicas>, Failed> {
    let mut held = Replicas::new();
    let mut config = Config::new(DISKS.map(Into::into));
    config.level = Level::REHEARSAL;
    let random = Arc::new(SeededRandom::new(0));
    // Disks that cannot be opened hold nothing.
    let Ok(store) = DiskStore::open(config, Arc::new(disks), Pool::inline(), random).await else {
        return Ok(Arc::new(held));
    };
    let mut after = None;
    loop {
        let page = store.list(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(Arc::new(held)) };
        after = Some(last.chunk);
        for found in page {
            let verified = store.verify(found.replica(), &FullSpeed).await;
            held.insert(found.replica(), matches!(verified, Ok(None)));
        }
    }
}

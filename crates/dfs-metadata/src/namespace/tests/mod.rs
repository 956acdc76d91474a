//! The namespace on the memory engine, with a manual clock.

mod checking;
mod chunks;
mod counting;
mod extents;
mod floor;
mod names;
mod node_intent;
mod nodes;
mod policies;
mod preconditions;
mod reaping;
mod reply_cache;
mod targets;
mod unneeded;
mod unreadable;
mod upgrade;
mod uploads;
mod workers;
mod xattrs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_types::{
    Attributes, ChunkSeal, ClientId, Clock, ClusterId, Crc32c, DfsPath, DiskId, Level, NodeId,
    NodeSecret, Random, Receipt, RegistrationNumber, Replication, Scope, Seal, SeededRandom,
    Sha256, Slot, Stamp, Target, Timestamp,
};

use super::*;
use crate::Error;
use crate::memory::MemoryEngine;
use crate::placement::{Candidate, NodeSelector, PlacementRequest};

/// A clock that only moves when advanced.
#[derive(Debug, Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn set(&self, now: Timestamp) {
        self.0.store(now.millis(), Ordering::Relaxed);
    }

    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Selects the first nodes.
struct FirstNodes;

impl NodeSelector for FirstNodes {
    fn select(
        &self,
        candidates: &[Candidate],
        request: &PlacementRequest<'_>,
        _: &dyn Random,
    ) -> Vec<NodeId> {
        let fits =
            |found: &&Candidate| found.free > request.bytes && !request.avoid.contains(&found.node);
        candidates.iter().filter(fits).map(|found| found.node).take(request.count).collect()
    }
}

/// A cluster with four nodes, and the keys that they seal receipts with.
struct Fixture {
    namespace: Namespace,
    engine: Arc<MemoryEngine>,
    clock: Arc<ManualClock>,
    candidates: Vec<Candidate>,
    client: ClientId,
    sequence: AtomicU64,
}

const HOUR: Duration = Duration::from_hours(1);
const CHUNK: u64 = 64 << 10;

impl Fixture {
    async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let clock = Arc::new(ManualClock::default());
        clock.advance(HOUR * 1_000);
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let replication = Replication { factor: 3, min_write: None };
        let options = InitOptions { cluster: ClusterId::random(&*random), replication };
        init(&*engine, &options, &*clock, &*random).await.unwrap();
        let namespace = open(&engine, &clock, &random, None).await.unwrap();
        let mut candidates = Vec::new();
        for number in 1..=4 {
            let node = NodeId(number);
            let registered =
                namespace.register(Scope::internal(), &registration(node, 0), true).await.unwrap();
            namespace
                .confirm_registration(Scope::internal(), node, registered.number)
                .await
                .unwrap();
            let (zone, host) = (String::new(), String::new());
            candidates.push(Candidate { node, zone, host, free: 1 << 40 });
        }
        let client = ClientId::new(clock.now(), &*random);
        let sequence = AtomicU64::new(1);
        Self { namespace, engine, clock, candidates, client, sequence }
    }

    fn random(&self) -> Arc<dyn Random> {
        self.namespace.inner.components.random.clone()
    }

    fn placement(&self) -> Placement<'_> {
        Placement { candidates: &self.candidates, selector: &FirstNodes }
    }

    fn repeat(&self) -> Repeat {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { client: self.client, slot: 0, sequence };
        Repeat { slot, body: Sha256([1; 32]) }
    }

    async fn plan(&self, at: &str, size: u64) -> Result<UploadPlan, Error> {
        let request = PlanUpload {
            target: path(at),
            size: Some(size),
            chunk_size: Some(CHUNK),
            replication_factor: None,
            max_chunks: 0,
            client_host: String::new(),
            client_zone: String::new(),
        };
        self.namespace.plan_upload(Scope::internal(), &request, &self.placement()).await
    }

    /// Returns the chunk as written, with a receipt from each of its nodes.
    fn written(&self, planned: &PlannedChunk) -> WrittenChunk {
        let seal = ChunkSeal {
            length: planned.max_length,
            crc32c: Crc32c(planned.file_offset as u32 + 1),
            sha256: Sha256([2; 32]),
        };
        let receipts = planned.nodes.iter().map(|node| self.receipt(planned, seal, *node));
        WrittenChunk {
            chunk: planned.chunk,
            file_offset: planned.file_offset,
            seal,
            receipts: receipts.collect(),
        }
    }

    fn receipt(&self, planned: &PlannedChunk, seal: ChunkSeal, node: NodeId) -> Receipt {
        let registration = RegistrationNumber(1);
        let receipt = Receipt {
            part: dfs_types::Part::WHOLE,
            chunk: planned.chunk,
            length: seal.length,
            crc32c: seal.crc32c,
            node,
            disk: DiskId(node.0),
            stamp: Stamp(1),
            registration,
            seal: Seal([0; 32]),
        };
        receipt.sealed(&self.namespace.keys().receipt(node, registration))
    }

    fn confirm_of(&self, plan: &UploadPlan) -> Confirm {
        let chunks: Vec<_> = plan.chunks.iter().map(|planned| self.written(planned)).collect();
        Confirm {
            tokens: vec![plan.token.clone()],
            size: chunks.iter().map(|chunk| chunk.seal.length).sum(),
            chunks,
            attributes: Attributes { mode: 0o640, ..Attributes::default() },
            precondition: None,
            xattrs: BTreeMap::new(),
        }
    }

    async fn put(&self, at: &str, size: u64) -> Result<FileStat, Error> {
        let mut repeat = self.repeat();
        // Concurrent calls use separate slots.
        repeat.slot.slot = 1 + (repeat.slot.sequence % 60) as u32;
        let plan = self.plan(at, size).await?;
        self.namespace.confirm(Scope::internal(), &self.confirm_of(&plan), Some(&repeat)).await
    }

    async fn mkdir(&self, at: &str) -> Result<FileStat, Error> {
        let request = MakeDirectory {
            target: path(at),
            parents: false,
            attributes: Attributes { mode: 0o755, ..Attributes::default() },
        };
        self.namespace.make_directory(Scope::internal(), &request, None).await
    }

    async fn symlink(&self, at: &str, target: &str) -> Result<FileStat, Error> {
        let request = MakeSymlink {
            target: path(at),
            symlink_target: Bytes::copy_from_slice(target.as_bytes()),
            attributes: Attributes::default(),
            replace: false,
        };
        self.namespace.make_symlink(Scope::internal(), &request, None).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let request =
            Rename { from: path(from), to: path(to), precondition: None, exchange: false };
        self.namespace.rename(Scope::internal(), &request, None).await
    }

    async fn delete(&self, at: &str, recursive: bool, now: bool) -> Result<(), Error> {
        let request = Delete { target: path(at), recursive, now, precondition: None };
        self.namespace.delete(Scope::internal(), &request, None).await.map(|_| ())
    }

    async fn stat(&self, at: &str) -> Result<FileStat, Error> {
        self.namespace.stat(Scope::internal(), &path(at), true).await
    }

    /// Lists the names in a directory, two per page.
    async fn list(&self, at: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let target = path(at);
            let page = self
                .namespace
                .list_directory(Scope::internal(), &target, after.as_ref(), 2)
                .await
                .unwrap();
            names.extend(page.entries.iter().map(|entry| entry.name.to_string()));
            after = page.entries.last().map(|entry| entry.name.clone());
            if !page.has_more {
                return names;
            }
        }
    }

    async fn open(&self, at: &str) -> Result<ReadPlan, Error> {
        self.open_range(path(at), 0, 0).await
    }

    async fn open_range(
        &self,
        target: Target,
        offset: u64,
        length: u64,
    ) -> Result<ReadPlan, Error> {
        let request = OpenFile { target, offset, length, max_extents: 0 };
        self.namespace.open_file(Scope::internal(), &request).await
    }

    /// Reaps until nothing is due, and returns how many chunks became tombstones.
    async fn reap(&self, pressure: bool) -> usize {
        let mut tombstones = 0;
        loop {
            let limits = ReapLimits { items: 3, pressure };
            let reaped = self.namespace.reap(Scope::internal(), &limits, None).await.unwrap();
            tombstones += reaped.tombstones;
            if !reaped.has_more {
                return tombstones;
            }
        }
    }

    /// Counts the keys that start with a prefix.
    async fn count(&self, prefix: &str) -> usize {
        let snapshot = crate::engine::Engine::snapshot(&*self.engine).await.unwrap();
        snapshot.range(prefix.as_bytes(), &[], 100_000).await.unwrap().len()
    }
}

async fn open(
    engine: &Arc<MemoryEngine>,
    clock: &Arc<ManualClock>,
    random: &Arc<dyn Random>,
    expected: Option<ClusterIdentity>,
) -> Result<Namespace, Error> {
    let (committer, serving) = Committer::new(engine.clone(), std::future::pending());
    tokio::spawn(serving);
    let (clock, random) = (clock.clone(), random.clone());
    let components = Components { engine: engine.clone(), committer, clock, random };
    Namespace::open(components, Options::default(), expected).await
}

fn registration(node: NodeId, number: u64) -> Registration {
    Registration {
        node,
        cluster: None,
        registration: RegistrationNumber(number),
        start: 0,
        address: format!("127.0.0.1:{}", node.0),
        zone: String::new(),
        host: String::new(),
        version: String::new(),
        level: Level::NEWEST,
        disks: vec![DiskId(node.0)],
        secret: NodeSecret::from_slice(&[1; 32]).unwrap(),
    }
}

fn path(text: &str) -> Target {
    Target::Path(DfsPath::new(text.as_bytes().to_vec()).unwrap())
}

/// Returns the code of an error.
fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> dfs_types::ErrorCode {
    result.unwrap_err().code()
}

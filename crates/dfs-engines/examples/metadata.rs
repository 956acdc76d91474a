//! Measures the namespace on redb and on etcd, alternating in one run: `cargo xtask bench
//! metadata`.
//! With the argument `bytes` it measures only the bytes of metadata per file, with `scale` only what
//! is done with a million chunks on redb.
//!
//! The coordinators are namespaces in this process, without RPC, each with its own committer and
//! engine handle; etcd is a single member in a separate process. A create counts once it is
//! durable: redb syncs twice per commit, etcd its log once. Prints Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dfs_engines::etcd::{EtcdEngine, Options as EtcdOptions};
use dfs_engines::redb::{Options as RedbOptions, RedbEngine};
use dfs_etcd::test_server::Cluster;
use dfs_etcd::{Client, Settings};
use dfs_metadata::Committer;
use dfs_metadata::chunk_health::{Contact, NodeLiveness};
use dfs_metadata::engine::Engine;
use dfs_metadata::namespace::{
    Components, Confirm, InitOptions, Liveness, MakeDirectory, Namespace, Options, Placement,
    PlanUpload, PlannedChunk, Registration, Repeat, WrittenChunk, init,
};
use dfs_metadata::placement::{Candidate, RoundRobin};
use dfs_types::{
    Attributes, CHUNK_SIZE_MIN, ChunkSeal, ClientId, ClusterId, Crc32c, DfsPath, DiskId, NodeId,
    NodeSecret, OsRandom, Receipt, RegistrationNumber, Replication, Scope, Seal, Sha256, Slot,
    Stamp, SystemClock, Target,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ROUNDS: usize = 3;
const CLIENTS: u64 = 16;
/// Duration of one measurement.
const FOR: Duration = Duration::from_millis(1_500);
/// Entries of the listed directory: one page.
const LISTED: u64 = 100;
/// Files whose metadata size is measured.
const FILES: u64 = 20_000;
const COPIES: u128 = 3;
/// Chunks of a large file: one page of a plan.
const LARGE_CHUNKS: u64 = Namespace::PLAN_CHUNKS_MAX as u64;
/// Files of a store with a million chunks.
const LARGE_FILES: u64 = 1_000_000 / LARGE_CHUNKS;
/// Batches as large as a committer allows.
const GROUP_COMMIT: usize = usize::MAX;

/// Coordinators on one store.
struct System {
    name: &'static str,
    has_group_commit: bool,
    coordinators: Vec<Namespace>,
    next: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    MakeDirectory,
    CreateFile,
    Stat,
    List,
    /// Not among the measured ones: fills a store.
    CreateLargeFile,
}

const CALLS: [(Call, &str); 4] = [
    (Call::MakeDirectory, "mkdir"),
    (Call::CreateFile, "creates of files"),
    (Call::Stat, "stats"),
    (Call::List, "lists of 100 entries"),
];

impl System {
    /// Creates a cluster in a store, with the files that are read later.
    async fn make(
        name: &'static str,
        engines: Vec<Arc<dyn Engine>>,
        batch_len: usize,
    ) -> Result<Self> {
        let replication = Replication { factor: COPIES as u8, min_write: None };
        let options = InitOptions { cluster: ClusterId::random(&OsRandom), replication };
        init(&*engines[0], &options, &SystemClock, &OsRandom).await?;
        let mut coordinators = Vec::new();
        for engine in engines {
            let stopped = std::future::pending();
            let (committer, serving) = Committer::with_batches(engine.clone(), batch_len, stopped);
            tokio::spawn(serving);
            let (clock, random) = (Arc::new(SystemClock), Arc::new(OsRandom));
            let components = Components { engine, committer, clock, random };
            coordinators.push(Namespace::open(components, Options::default(), None).await?);
        }
        for node in 1..=COPIES {
            let node = NodeId(node);
            let registered =
                coordinators[0].register(Scope::internal(), &registration(node), true).await?;
            coordinators[0]
                .confirm_registration(Scope::internal(), node, registered.number)
                .await?;
        }
        let has_group_commit = batch_len > 1;
        let system = Self { name, has_group_commit, coordinators, next: AtomicU64::new(0) };
        for directory in (0..CLIENTS).map(|client| format!("/{client}")).chain(["/l".to_owned()]) {
            system.make_directory(0, &directory).await?;
        }
        for n in 0..LISTED {
            system.create(0, &format!("/l/{n}")).await?;
        }
        Ok(system)
    }

    fn coordinator(&self, client: u64) -> &Namespace {
        &self.coordinators[client as usize % self.coordinators.len()]
    }

    async fn make_directory(&self, client: u64, at: &str) -> Result<()> {
        let (target, attributes) = (path(at)?.into(), Attributes::default());
        let request = MakeDirectory { target, parents: false, attributes };
        self.coordinator(client)
            .make_directory(Scope::internal(), &request, Some(&self.repeat(client)))
            .await?;
        Ok(())
    }

    /// Creates a file of one chunk.
    async fn create(&self, client: u64, at: &str) -> Result<()> {
        self.create_chunks(client, at, 4_096, 4_096).await
    }

    /// Creates a file, as if its nodes had stored its chunks.
    async fn create_chunks(&self, client: u64, at: &str, size: u64, length: u64) -> Result<()> {
        let namespace = self.coordinator(client);
        let candidate = |node| {
            let (zone, host) = (String::new(), String::new());
            Candidate { node: NodeId(node), zone, host, free: 1 << 40 }
        };
        let candidates: Vec<_> = (1..=COPIES).map(candidate).collect();
        let placement = Placement { candidates: &candidates, selector: &RoundRobin::default() };
        let request = PlanUpload {
            target: path(at)?.into(),
            size: Some(size),
            chunk_size: (size > length).then_some(length),
            replication_factor: None,
            max_chunks: 0,
            client_host: String::new(),
            client_zone: String::new(),
        };
        let plan = namespace.plan_upload(Scope::internal(), &request, &placement).await?;
        let confirm = Confirm {
            tokens: vec![plan.token.clone()],
            size,
            chunks: plan.chunks.iter().map(|chunk| written(namespace, chunk, length)).collect(),
            attributes: Attributes::default(),
            precondition: None,
            xattrs: BTreeMap::new(),
        };
        namespace.confirm(Scope::internal(), &confirm, Some(&self.repeat(client))).await?;
        Ok(())
    }

    fn repeat(&self, client: u64) -> Repeat {
        let sequence = 1 + self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { client: ClientId(u128::from(client)), slot: 0, sequence };
        Repeat { slot, body: Sha256([1; 32]) }
    }

    async fn call(&self, call: Call, client: u64) -> Result<()> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        match call {
            Call::MakeDirectory => self.make_directory(client, &format!("/{client}/{n}")).await,
            Call::CreateFile => self.create(client, &format!("/{client}/{n}")).await,
            Call::CreateLargeFile => {
                let size = LARGE_CHUNKS * CHUNK_SIZE_MIN;
                self.create_chunks(client, &format!("/{client}/{n}"), size, CHUNK_SIZE_MIN).await
            }
            Call::Stat => {
                let path = path(&format!("/l/{}", n % LISTED))?;
                self.coordinator(client).stat(Scope::internal(), &path.into(), true).await?;
                Ok(())
            }
            Call::List => {
                let target = Target::Path(path("/l")?);
                let limit = Namespace::PAGE_LEN_MAX;
                let namespace = self.coordinator(client);
                let page =
                    namespace.list_directory(Scope::internal(), &target, None, limit).await?;
                assert_eq!(page.entries.len() as u64, LISTED, "all is listed");
                Ok(())
            }
        }
    }

    /// Returns the calls per second of all clients together, made while `should_continue` agrees to their
    /// number.
    async fn rate(
        self: &Arc<Self>,
        call: Call,
        should_continue: impl Fn(u64, Duration) -> bool + Copy + Send + 'static,
    ) -> Result<f64> {
        let (started, made) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (system, made) = (self.clone(), made.clone());
                tokio::spawn(async move {
                    while should_continue(made.fetch_add(1, Ordering::Relaxed), started.elapsed()) {
                        system.call(call, client).await?;
                    }
                    // The call that was not made.
                    made.fetch_sub(1, Ordering::Relaxed);
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
                })
            })
            .collect();
        for client in clients {
            client.await??;
        }
        Ok(made.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
    }
}

fn registration(node: NodeId) -> Registration {
    Registration {
        node,
        cluster: None,
        registration: RegistrationNumber(0),
        start: 0,
        address: format!("node-{}:7080", node.0),
        zone: String::new(),
        host: format!("node-{}", node.0),
        version: "0.1.0".to_owned(),
        level: dfs_types::Level::NEWEST,
        disks: vec![DiskId(node.0)],
        secret: NodeSecret::random(&OsRandom),
    }
}

fn written(namespace: &Namespace, planned: &PlannedChunk, length: u64) -> WrittenChunk {
    let seal = ChunkSeal { length, crc32c: Crc32c(1), sha256: Sha256([1; 32]) };
    let registration = RegistrationNumber(1);
    let receipt = |node: &NodeId| {
        let receipt = Receipt {
            part: dfs_types::Part::WHOLE,
            chunk: planned.chunk,
            length: seal.length,
            crc32c: seal.crc32c,
            node: *node,
            disk: DiskId(node.0),
            stamp: Stamp(1),
            registration,
            seal: Seal([0; 32]),
        };
        receipt.sealed(&namespace.keys().receipt(*node, registration))
    };
    let receipts = planned.nodes.iter().map(receipt).collect();
    WrittenChunk { chunk: planned.chunk, file_offset: planned.file_offset, seal, receipts }
}

fn path(text: &str) -> Result<DfsPath> {
    Ok(DfsPath::new(text.as_bytes().to_vec())?)
}

async fn redb(folder: &Path) -> Result<Arc<dyn Engine>> {
    Ok(Arc::new(RedbEngine::open(folder, RedbOptions::default()).await?))
}

async fn etcd(cluster: &Cluster, prefix: &str, handles: usize) -> Result<Vec<Arc<dyn Engine>>> {
    let settings = Settings { members: cluster.addresses(), ..Settings::default() };
    let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
    for _ in 0..handles {
        engines.push(Arc::new(EtcdEngine::open(&settings, prefix, EtcdOptions::default()).await?));
    }
    Ok(engines)
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

async fn rates(folder: &Path) -> Result<()> {
    let member = Cluster::start(1).await;
    let mut systems = Vec::new();
    for (suffix, batch_len) in [("", GROUP_COMMIT), ("-off", 1)] {
        let engines = vec![redb(&folder.join(format!("redb{suffix}"))).await?];
        systems.push(System::make("redb, 1 coordinator", engines, batch_len).await?);
        for (name, handles) in [("etcd, 1 coordinator", 1), ("etcd, 3 coordinators", 3)] {
            let engines = etcd(&member, &format!("c{handles}{suffix}"), handles).await?;
            systems.push(System::make(name, engines, batch_len).await?);
        }
    }
    let systems: Vec<Arc<System>> = systems.into_iter().map(Arc::new).collect();
    let mut figures = vec![vec![Vec::new(); systems.len()]; CALLS.len()];
    for round in 0..ROUNDS {
        for turn in 0..systems.len() {
            let at = (round * 2 + turn) % systems.len();
            let system = &systems[at];
            for (index, (call, what)) in CALLS.iter().enumerate() {
                let is_read = matches!(call, Call::Stat | Call::List);
                if is_read && !system.has_group_commit {
                    continue;
                }
                let rate = system.rate(*call, |_, elapsed| elapsed < FOR).await?;
                let batches = if system.has_group_commit { "" } else { ", no group commit" };
                eprintln!("{}{batches}, {what}: {rate:.0}/s", system.name);
                figures[index][at].push(rate);
            }
        }
    }
    let half = systems.len() / 2;
    println!(
        "| median of {ROUNDS}, {CLIENTS} clients, calls/s | redb, 1 coordinator | etcd, 1 coordinator | ratio | etcd, 3 coordinators | ratio |"
    );
    println!("|---|---|---|---|---|---|");
    for (offset, what_else) in [(0, ""), (half, ", no group commit")] {
        for (index, (_, what)) in CALLS.iter().enumerate() {
            let of = |system: usize| median(&figures[index][offset + system]);
            let (own, one, three) = (of(0), of(1), of(2));
            if own > 0.0 {
                println!(
                    "| {what}{what_else} | {own:.0} | {one:.0} | {:.2} | {three:.0} | {:.2} |",
                    one / own,
                    three / own
                );
            }
        }
    }
    println!(
        "\n| group commit, calls/s with it to without | redb | etcd, 1 | etcd, 3 |\n|---|---|---|---|"
    );
    for (index, (_, what)) in CALLS.iter().enumerate().take(2) {
        let gain = |system: usize| {
            median(&figures[index][system]) / median(&figures[index][half + system])
        };
        println!("| {what} | {:.1} | {:.1} | {:.1} |", gain(0), gain(1), gain(2));
    }
    Ok(())
}

/// Measures the bytes of metadata per file. Overwritten values do not count: etcd is compacted
/// first.
async fn bytes(folder: &Path) -> Result<()> {
    let count = |made: u64, _: Duration| made < FILES;
    let per_file = |before: f64, after: f64| (after - before) / FILES as f64;
    let place = folder.join("bytes");
    let file = || std::fs::metadata(place.join("metadata.redb")).map(|file| file.len() as f64);
    let system = System::make("redb", vec![redb(&place).await?], GROUP_COMMIT).await?;
    let before = file()?;
    let rate = Arc::new(system).rate(Call::CreateFile, count).await?;
    let own = per_file(before, file()?);
    eprintln!("redb: {FILES} files at {rate:.0}/s");

    let member = Cluster::start(1).await;
    let engines = etcd(&member, "bytes", 1).await?;
    let engine = engines[0].clone();
    let system = System::make("etcd", engines, GROUP_COMMIT).await?;
    let before = in_use(&member, &*engine).await?;
    let rate = Arc::new(system).rate(Call::CreateFile, count).await?;
    let theirs = per_file(before, in_use(&member, &*engine).await?);
    eprintln!("etcd: {FILES} files at {rate:.0}/s");
    println!(
        "\n| bytes of metadata a file, {FILES} files of one chunk and three replicas | |\n|---|---|"
    );
    println!("| redb, growth of the file | {own:.0} |");
    println!("| etcd, growth of the bytes in use after compaction | {theirs:.0} |");
    Ok(())
}

/// Measures with a million chunks on redb: the scan of all of them, which a comparison with the disks
/// makes, and whether a node can stop.
async fn scale(folder: &Path) -> Result<()> {
    let place = folder.join("scale");
    let system = Arc::new(System::make("redb", vec![redb(&place).await?], GROUP_COMMIT).await?);
    let count = |made: u64, _: Duration| made < LARGE_FILES;
    let rate = system.rate(Call::CreateLargeFile, count).await?;
    eprintln!("{LARGE_FILES} files of {LARGE_CHUNKS} chunks at {rate:.0}/s");
    let namespace = system.coordinator(0);
    let milliseconds = |started: Instant| started.elapsed().as_secs_f64() * 1e3;
    let (mut scans, mut checks, mut chunks) = (Vec::new(), Vec::new(), 0);
    let stopping = BTreeSet::from([NodeId(1)]);
    let heard = NodeLiveness { contact: Contact::Responsive, ..NodeLiveness::default() };
    let liveness: Liveness = (1..=COPIES).map(|node| (NodeId(node), heard.clone())).collect();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut after = None;
        chunks = 0;
        loop {
            let limit = Namespace::PAGE_LEN_MAX;
            let page = namespace.scan_chunks(Scope::internal(), after.as_ref(), limit).await?;
            chunks += page.chunks.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        scans.push(milliseconds(started));
        let started = Instant::now();
        let safety = namespace.safe_to_stop(Scope::internal(), &stopping, &liveness).await?;
        checks.push(milliseconds(started));
        assert!(safety.is_some_and(|safety| safety.is_safe()), "two replicas of each are left");
    }
    println!("\n| {chunks} chunks on redb, median of {ROUNDS} | ms |\n|---|---|");
    println!("| read all records | {:.0} |", median(&scans));
    println!("| can a node stop | {:.2} |", median(&checks));
    Ok(())
}

/// Returns the bytes in use in etcd after compaction.
async fn in_use(member: &Cluster, engine: &dyn Engine) -> Result<f64> {
    const LOOK: Duration = Duration::from_secs(1);
    let settings = Settings { members: member.addresses(), ..Settings::default() };
    let revision = engine.snapshot().await?.revision();
    Client::new(&settings, 0)?.compact(revision.0 as i64).await?;
    let name = "etcd_mvcc_db_total_size_in_use_in_bytes";
    let mut last = f64::MAX;
    for _ in 0..20 {
        tokio::time::sleep(LOOK).await;
        let now = member.metric(0, name).await.ok_or("etcd reports no size")?;
        if now >= last {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    match std::env::args().nth(1).as_deref() {
        Some("bytes") => bytes(folder.path()).await,
        Some("scale") => scale(folder.path()).await,
        _ => {
            rates(folder.path()).await?;
            bytes(folder.path()).await?;
            scale(folder.path()).await
        }
    }
}

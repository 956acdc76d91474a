//! A coordinator, its clients and its datanodes.

pub(crate) mod datanode;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dfs_coordinator::{Components, Error, Handle, Service, Settings, init};
use dfs_metadata::Committer;
use dfs_metadata::engine::{Commit, Engine, Outcome, Write};
use dfs_metadata::memory::MemoryEngine;
use dfs_metadata::namespace::{self, ClusterIdentity, Namespace};
use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::v1::coordinator_client::CoordinatorClient;
use dfs_proto::{Failure, Issued, OrderParties, seal_order, v1};
use dfs_runtime::{JoinSecret, Shutdown, Trigger};
use dfs_transport::TcpNetwork;
use dfs_types::{ChunkId, Clock, ErrorCode, NodeId, Receipt, SeededRandom, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use datanode::{FakeDataNode, Neighbours};

/// Time limit of everything, even on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);
pub(crate) const CHUNK: u64 = 64 << 10;
pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Connects to a coordinator.
pub(crate) async fn channel(address: &str) -> Channel {
    Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Returns the reply of a coordinator's HTTP listener.
pub(crate) async fn http_get(handle: &Handle, path: &str) -> String {
    let mut stream = TcpStream::connect(handle.http_address.unwrap()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Returns the code with which a call was refused.
pub(crate) fn refused<T: Debug>(result: Result<T, Status>) -> ErrorCode {
    Failure::from_status(&result.expect_err("the call should have been refused")).code
}

/// A clock that only moves when advanced.
#[derive(Debug)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_700_000_000_000)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        listen: "127.0.0.1:0".to_owned(),
        http_listen: "127.0.0.1:0".to_owned(),
        join_secret: JoinSecret::new("secret"),
        heartbeat_interval_ms: 20,
        suspect_after_ms: 1_000,
        lost_after_ms: 1_200,
        worker_lease_ms: 300,
        confirm_clock_ms: 0,
        ..Settings::default()
    }
}

pub(crate) struct Cluster {
    pub(crate) handle: Handle,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) neighbours: Neighbours,
    pub(crate) nodes: BTreeMap<NodeId, Arc<FakeDataNode>>,
    settings: Settings,
    stop: Trigger,
    running: JoinHandle<Result<(), Error>>,
}

pub(crate) fn components(engine: &Arc<dyn Engine>, clock: &Arc<ManualClock>) -> Components {
    static SEED: AtomicU64 = AtomicU64::new(1);
    Components {
        engine: engine.clone(),
        network: Arc::new(TcpNetwork),
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(SEED.fetch_add(1, Ordering::Relaxed))),
    }
}

/// Returns a copy of a store, to which its metadata can be set back.
pub(crate) async fn copy_of(engine: &dyn Engine) -> Arc<dyn Engine> {
    let found = engine.snapshot().await.unwrap().range(b"", b"", usize::MAX).await.unwrap();
    let copy = Arc::new(MemoryEngine::new());
    for (key, found) in found {
        let commit = Commit { writes: vec![Write::Put(key, found.value)], ..Commit::default() };
        let outcome = copy.commit_batch(vec![commit]).await.unwrap();
        assert!(matches!(outcome[..], [Outcome::Committed(_)]));
    }
    copy
}

impl Cluster {
    /// Starts a cluster with this many datanodes, numbered from 1.
    pub(crate) async fn start(nodes: u128) -> Self {
        Self::with(settings(), Arc::new(MemoryEngine::new()), nodes).await
    }

    pub(crate) async fn with(settings: Settings, engine: Arc<dyn Engine>, nodes: u128) -> Self {
        let clock = ManualClock::new();
        let random = SeededRandom::new(7);
        init(engine.clone(), &*clock, &random, settings.init_options().unwrap()).await.unwrap();
        let (handle, stop, running) = run(&settings, &engine, &clock).await;
        let mut cluster = Self {
            handle,
            engine,
            clock,
            neighbours: Neighbours::default(),
            nodes: BTreeMap::new(),
            settings,
            stop,
            running,
        };
        for id in 1..=nodes {
            cluster.add_node(id).await;
        }
        cluster
    }

    /// Returns a status request as sealed by another coordinator.
    pub(crate) async fn peer_request(&self) -> v1::ClusterStatusRequest {
        let components = namespace::Components {
            engine: self.engine.clone(),
            committer: Committer::new(self.engine.clone(), std::future::pending()).0,
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
        };
        let opened = Namespace::open(components, namespace::Options::default(), None).await;
        let namespace = opened.unwrap();
        let ClusterIdentity { cluster, incarnation } = namespace.identity();
        let parties = OrderParties { cluster, incarnation, node: NodeId(0) };
        let issued = Issued { coordinator: 1, at: self.clock.now() };
        let request = v1::ClusterStatusRequest { min_revision: 0, order: None };
        seal_order(request, &namespace.keys().peer(), parties, issued)
    }

    /// Returns the coordinator's own status, which it reports only to others.
    pub(crate) async fn own_status(&self) -> v1::ClusterStatusResponse {
        let request = self.peer_request().await;
        self.admin().await.cluster_status(request).await.unwrap().into_inner()
    }

    /// Starts another coordinator on the same metadata; the datanodes report to both.
    pub(crate) async fn another(&self) -> Self {
        let (handle, stop, running) = run(&self.settings, &self.engine, &self.clock).await;
        for node in self.nodes.values() {
            node.beat_at(&handle.address.to_string()).await;
        }
        Self {
            handle,
            engine: self.engine.clone(),
            clock: self.clock.clone(),
            neighbours: self.neighbours.clone(),
            nodes: self.nodes.clone(),
            settings: self.settings.clone(),
            stop,
            running,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.handle.address.to_string()
    }

    pub(crate) async fn add_node(&mut self, id: u128) -> Arc<FakeDataNode> {
        self.add_node_with(id, |_| ()).await
    }

    /// Adds a node that is changed before it registers.
    pub(crate) async fn add_node_with(
        &mut self,
        id: u128,
        change: impl FnOnce(&FakeDataNode),
    ) -> Arc<FakeDataNode> {
        let node = FakeDataNode::serve(id, &self.address(), &self.neighbours).await;
        change(&node);
        node.register("secret").await.unwrap();
        node.beat().await;
        self.nodes.insert(node.id, node.clone());
        node
    }

    pub(crate) fn node(&self, id: u128) -> &Arc<FakeDataNode> {
        &self.nodes[&NodeId(id)]
    }

    /// Stops the coordinator, which must end by itself and without an error.
    pub(crate) async fn stop(&mut self) {
        self.stop.stop();
        let ended = tokio::time::timeout(DEADLINE, &mut self.running).await;
        ended.expect("stops in bounded time").unwrap().unwrap();
    }

    /// Starts it again at the same address, on this store.
    pub(crate) async fn start_again(&mut self, engine: Arc<dyn Engine>) {
        self.settings.listen = self.address();
        self.engine = engine;
        let (handle, stop, running) = run(&self.settings, &self.engine, &self.clock).await;
        (self.handle, self.stop, self.running) = (handle, stop, running);
    }

    /// Starts it again on a copy of the store, which is a new incarnation: deletion is on hold.
    pub(crate) async fn restore(&mut self) {
        self.stop().await;
        let target: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        eventually("the lease of the coordinator has expired", || async {
            dfs_metadata::migrate::migrate(&*self.engine, &*target, &|_| {}).await.is_ok()
        })
        .await;
        self.start_again(target).await;
        for node in self.nodes.values() {
            node.silence();
            node.register("secret").await.unwrap();
            node.beat().await;
        }
    }

    /// Opens the namespace, as another process on the same store does.
    pub(crate) async fn namespace(&self) -> Namespace {
        let (committer, commits) = Committer::new(self.engine.clone(), std::future::pending());
        tokio::spawn(commits);
        let Components { engine, clock, random, .. } = components(&self.engine, &self.clock);
        let components = namespace::Components { engine, committer, clock, random };
        Namespace::open(components, namespace::Options::default(), None).await.unwrap()
    }

    pub(crate) async fn client(&self) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(channel(&self.address()).await)
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(channel(&self.address()).await)
    }

    pub(crate) async fn status(&self) -> v1::ClusterStatusResponse {
        let request = v1::ClusterStatusRequest::default();
        self.admin().await.cluster_status(request).await.unwrap().into_inner()
    }

    /// Returns the health of chunks, once known.
    pub(crate) async fn replication(&self) -> Option<v1::ReplicationStatus> {
        self.status().await.replication.filter(|replication| replication.is_known)
    }

    pub(crate) async fn plan(&self, path: &str, size: u64) -> v1::UploadPlan {
        let request = upload_request(path, size);
        self.client().await.upload_file(request).await.unwrap().into_inner()
    }

    /// Writes a file of one chunk with replicas on exactly these nodes.
    pub(crate) async fn put(&self, path: &str, data: &[u8], nodes: &[u128]) -> ChunkId {
        let (request, chunk) = self.write(path, data, nodes).await;
        self.client().await.confirm_upload(request).await.unwrap();
        chunk
    }

    /// Writes the one chunk of a file to these nodes, chosen by their free space, and returns the
    /// confirmation.
    pub(crate) async fn write(
        &self,
        path: &str,
        data: &[u8],
        nodes: &[u128],
    ) -> (v1::ConfirmRequest, ChunkId) {
        let plan = self.plan_on(path, data.len() as u64, nodes).await;
        let chunk = ChunkId::from_slice(&plan.chunks[0].chunk_id).unwrap();
        let receipts: Vec<Receipt> =
            nodes.iter().map(|node| self.node(*node).write(chunk, data)).collect();
        let request = v1::ConfirmRequest {
            tokens: vec![plan.token],
            chunks: vec![datanode::written(chunk, 0, data, &receipts)],
            size: data.len() as u64,
            attributes: Some(v1::Attributes { mode: 0o644, ..v1::Attributes::default() }),
            ..v1::ConfirmRequest::default()
        };
        (request, chunk)
    }

    /// Plans until the chunk is placed on all of these nodes.
    async fn plan_on(&self, path: &str, size: u64, nodes: &[u128]) -> v1::UploadPlan {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let plan = self.plan(path, size).await;
            let planned: Vec<NodeId> = plan.chunks[0]
                .nodes
                .iter()
                .map(|node| NodeId::from_slice(&node.node_id).unwrap())
                .collect();
            if nodes.iter().all(|node| planned.contains(&NodeId(*node))) {
                return plan;
            }
            assert!(Instant::now() < deadline, "never planned on {nodes:?}");
        }
    }

    /// Returns the recorded replicas of a file's first chunk, and whether each is bad.
    pub(crate) async fn replicas(&self, path: &str) -> BTreeMap<u128, bool> {
        let request = v1::OpenRequest {
            target: Some(v1::Target::of_path(path.to_owned())),
            ..v1::OpenRequest::default()
        };
        let opened = self.client().await.open_file(request).await.unwrap().into_inner();
        let replicas = opened.extents[0].replicas.iter();
        replicas
            .map(|replica| {
                let is_bad =
                    matches!(replica.health(), v1::ReplicaHealth::Bad | v1::ReplicaHealth::Gone);
                (NodeId::from_slice(&replica.node_id).unwrap().0, is_bad)
            })
            .collect()
    }
}

pub(crate) fn upload_request(path: &str, size: u64) -> v1::UploadRequest {
    v1::UploadRequest {
        target: Some(v1::Target::of_path(path.to_owned())),
        size: Some(size),
        chunk_size: Some(CHUNK),
        ..v1::UploadRequest::default()
    }
}

async fn run(
    settings: &Settings,
    engine: &Arc<dyn Engine>,
    clock: &Arc<ManualClock>,
) -> (Handle, Trigger, JoinHandle<Result<(), Error>>) {
    let service = Service::start(settings.clone(), components(engine, clock)).await.unwrap();
    let handle = service.handle();
    let (stop, shutdown) = Shutdown::new();
    let running = tokio::spawn(service.run(shutdown));
    handle.readiness.wait_ready().await;
    (handle, stop, running)
}

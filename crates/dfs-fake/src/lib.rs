//! A fake cluster: a coordinator that keeps a map, and datanodes that keep bytes, over a network
//! within the process, with injected faults. For the tests and examples of the SDK, which would
//! otherwise compile it once for each example.

#![expect(clippy::unwrap_used, reason = "a fake may panic, like the test that uses it")]

mod coordinator;
mod datanode;
mod outside;
mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::v1::coordinator_server::CoordinatorServer;
use dfs_proto::v1::data_node_server::DataNodeServer;
use dfs_proto::wire::WireId as _;
use dfs_proto::{FRAME_MESSAGE_LEN_MAX, Failure, MESSAGE_LEN_MAX, v1};
use dfs_streamer::Session;
use dfs_transport::{
    ConnectionLimits, Gate, MemoryNetwork, Network as _, REQUEST_ID_HEADER, Security, Server, serve,
};
use dfs_types::{ChunkId, ChunkSeal, ErrorCode, NodeId, NodeState, SessionId};
use futures_util::Stream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use coordinator::FakeCoordinator;
use datanode::FakeDataNode;
pub use outside::{Blocked, Outside};
use relay::FakeRelay;

// For the macros.
#[doc(hidden)]
pub use dfs_streamer::Hashing;
#[doc(hidden)]
pub use dfs_types::SeededRandom;

const GATE: Gate = Gate::new(Server::Coordinator, Security::Plaintext);

/// Default chunk length in bytes.
pub const CHUNK: u64 = 256 << 10;
/// Replicas required to accept a chunk.
const MIN_REPLICAS: u32 = 2;
/// Address of the first coordinator.
pub const COORDINATOR: &str = "127.0.0.1:7070";

type Stored = BTreeMap<(NodeId, ChunkId), (Bytes, ChunkSeal)>;
type Answered<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Faults of a datanode.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Replies to reads with `UNAVAILABLE`.
    pub refuses_reads: bool,
    /// Starts to serve reads, but stalls while this is set.
    pub hangs_reads: bool,
    /// Serves this block of every chunk with one bit flipped.
    pub flips_bit_of: Option<u64>,
    /// Serves other bytes of the same length, with matching checksums.
    pub serves_other_bytes: bool,
    /// Refuses sessions, also as a replica.
    pub refuses_uploads: bool,
    /// Replies to this many prepares with `BUSY`.
    pub busy: u32,
    /// Accepts no frames while this is set.
    pub hangs_uploads: bool,
    /// Cuts the next upload stream after this many bytes.
    pub cuts_after: Option<u64>,
    /// Forgets the session after the cut.
    pub forgets: bool,
}

/// A fake datanode.
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Name of its machine.
    pub host: String,
    /// Its zone.
    pub zone: String,
    /// Its current faults.
    pub faults: watch::Sender<Faults>,
    /// Number of reads started.
    pub reads: AtomicU64,
    /// Number of reads in progress.
    pub reading: AtomicU64,
    /// Number of sessions prepared.
    pub prepared: AtomicU64,
    /// Reports of bad replicas: chunk and block.
    pub reports: Mutex<Vec<(ChunkId, u64)>>,
    sessions: Mutex<BTreeMap<SessionId, (Arc<Session>, v1::ChunkMeta)>>,
    /// Its address.
    pub address: String,
}

impl Node {
    /// Changes its faults.
    pub fn fault(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }

    fn location(&self) -> v1::NodeLocation {
        v1::NodeLocation {
            node_id: self.id.to_wire(),
            address: self.address.clone(),
            zone: self.zone.clone(),
            host: self.host.clone(),
            state: v1::NodeState::from(NodeState::Active).into(),
        }
    }
}

/// A file, or a version of one.
#[derive(Debug, Clone)]
pub struct File {
    /// Its attributes.
    pub stat: v1::FileStat,
    /// Its chunks, in order.
    pub chunks: Vec<v1::WrittenChunk>,
}

/// An upload in progress.
#[derive(Debug, Default)]
pub struct Upload {
    path: Bytes,
    size: Option<u64>,
    chunk_size: u64,
    /// Offset and token of each planned chunk.
    planned: BTreeMap<ChunkId, (u64, Bytes)>,
    /// Chunks confirmed so far.
    pub staged: Vec<v1::WrittenChunk>,
}

/// How coordinators handle calls for datanodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Relaying {
    /// Refuse them.
    #[default]
    Off,
    /// Relay them.
    On,
    /// Relay them, but flip a bit of the next frame read.
    FlipsABit,
}

/// State and faults of the coordinators.
#[derive(Debug, Default)]
pub struct State {
    /// Inode of each path.
    pub names: BTreeMap<Bytes, u64>,
    /// Files by inode.
    pub inodes: BTreeMap<u64, File>,
    /// Uploads in progress.
    pub uploads: BTreeMap<u64, Upload>,
    /// Uploads that were aborted.
    pub aborted: BTreeSet<u64>,
    /// Chunks that aborts named as durable.
    pub chunks_aborted: usize,
    /// Minimum time of each call.
    pub latency: Duration,
    /// Health that `explain` reports; good beyond the map.
    pub replica_health: BTreeMap<(ChunkId, NodeId), v1::ReplicaHealth>,
    /// Nodes without a known address.
    pub unknown_nodes: BTreeSet<NodeId>,
    /// Reports all chunks as erasure-coded.
    pub is_coded: bool,
    /// Calls by name that did something, without repeats.
    pub done: BTreeMap<&'static str, u64>,
    /// Applies the next call of this name, and loses the reply.
    pub loses_answer_of: Option<&'static str>,
    /// Replies to this many calls with `BUSY`.
    pub busy: u32,
    /// Addresses of coordinators that accept connections and calls, and never reply.
    pub hanging: BTreeSet<String>,
    /// Addresses of coordinators that just started and know nothing yet.
    pub gathering: BTreeSet<String>,
    /// How they handle calls for datanodes.
    pub relaying: Relaying,
    /// Replies to this many streams to be relayed with `BUSY`.
    pub busy_relays: u32,
    /// Calls relayed by each coordinator.
    pub relayed: BTreeMap<String, u64>,
    /// Calls received by each coordinator.
    pub received: BTreeMap<String, u64>,
    /// The last call of each slot: number, body, reply.
    slots: BTreeMap<(Bytes, u32), (u64, String, v1::FileStat)>,
    /// Last id given to an inode, chunk or token.
    last: u64,
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn count(&mut self, call: &'static str) {
        *self.done.entry(call).or_default() += 1;
    }

    /// Returns the names below a directory.
    fn below(&self, path: &[u8]) -> Vec<Bytes> {
        let top = [path, b"/"].concat();
        self.names.keys().filter(|name| name.starts_with(&top)).cloned().collect()
    }

    /// Returns how often a call did something.
    pub fn done(&self, call: &str) -> u64 {
        self.done.get(call).copied().unwrap_or_default()
    }
}

/// State shared by all servers.
pub struct World {
    /// The network inside the cluster.
    pub network: MemoryNetwork,
    /// The datanodes, in the order of their numbers.
    pub nodes: Vec<Arc<Node>>,
    /// State and faults of the coordinators.
    pub state: Mutex<State>,
    /// Replicas on the datanodes.
    pub stored: Mutex<Stored>,
    /// Stopped nodes.
    down: Mutex<BTreeSet<NodeId>>,
    /// Request ids with their calls.
    pub request_ids: Mutex<Vec<(&'static str, String)>>,
}

impl World {
    fn is_up(&self, node: &Node) -> bool {
        !self.down.lock().unwrap().contains(&node.id)
    }
}

/// The fake cluster; stops when dropped.
pub struct Cluster {
    /// State shared by its servers.
    pub world: Arc<World>,
    coordinators: Mutex<BTreeMap<String, JoinHandle<()>>>,
    nodes: Vec<Mutex<Option<JoinHandle<()>>>>,
}

impl Cluster {
    /// Starts a cluster with `nodes` datanodes. The n-th runs on host `h<n>` in zone `z<n>`.
    pub async fn start(nodes: u128) -> Self {
        let node = |number| {
            Arc::new(Node {
                id: NodeId(number),
                host: format!("h{number}"),
                zone: format!("z{number}"),
                faults: watch::Sender::default(),
                reads: AtomicU64::new(0),
                reading: AtomicU64::new(0),
                prepared: AtomicU64::new(0),
                reports: Mutex::default(),
                sessions: Mutex::default(),
                address: format!("127.0.0.1:{}", 7080 + number),
            })
        };
        let nodes: Vec<_> = (1..=nodes).map(node).collect();
        let cluster = Self {
            coordinators: Mutex::default(),
            nodes: nodes.iter().map(|_| Mutex::default()).collect(),
            world: Arc::new(World {
                network: MemoryNetwork::default(),
                nodes,
                state: Mutex::default(),
                stored: Mutex::default(),
                down: Mutex::default(),
                request_ids: Mutex::default(),
            }),
        };
        cluster.start_coordinator().await;
        for number in 1..=cluster.nodes.len() {
            cluster.start_node(number).await;
        }
        cluster
    }

    /// Starts the first coordinator.
    pub async fn start_coordinator(&self) {
        self.start_coordinator_at(COORDINATOR).await;
    }

    /// Starts another coordinator of the same cluster.
    pub async fn start_coordinator_at(&self, address: &str) {
        let coordinator = FakeCoordinator { world: self.world.clone(), at: address.to_owned() };
        let service =
            CoordinatorServer::new(coordinator).max_decoding_message_size(MESSAGE_LEN_MAX);
        let passing = FakeRelay { world: self.world.clone(), at: address.to_owned() };
        let passing = DataNodeServer::new(passing).max_decoding_message_size(FRAME_MESSAGE_LEN_MAX);
        let routes = Routes::new(service).add_service(passing);
        let running = self.serve(address, routes, ConnectionLimits::default()).await;
        self.coordinators.lock().unwrap().insert(address.to_owned(), running);
    }

    /// Starts a coordinator that has no room for connections.
    pub async fn start_full_coordinator_at(&self, address: &str) {
        let limits = ConnectionLimits { total: 0, ..ConnectionLimits::default() };
        let running = self.serve(address, Routes::default(), limits).await;
        self.coordinators.lock().unwrap().insert(address.to_owned(), running);
    }

    /// Stops the first coordinator.
    pub async fn stop_coordinator(&self) {
        self.stop_coordinator_at(COORDINATOR).await;
    }

    /// Stops the coordinator at this address.
    pub async fn stop_coordinator_at(&self, address: &str) {
        let running = self.coordinators.lock().unwrap().remove(address);
        stop(running).await;
    }

    /// Starts the datanode with this number, from 1.
    pub async fn start_node(&self, number: usize) {
        let node = self.node(number).clone();
        let address = node.address.clone();
        let service = DataNodeServer::new(FakeDataNode { node, world: self.world.clone() })
            .max_decoding_message_size(FRAME_MESSAGE_LEN_MAX);
        let limits = ConnectionLimits::default();
        let running = self.serve(&address, Routes::new(service), limits).await;
        self.world.down.lock().unwrap().remove(&self.node(number).id);
        *self.nodes[number - 1].lock().unwrap() = Some(running);
    }

    /// Stops the datanode with this number, from 1.
    pub async fn stop_node(&self, number: usize) {
        let running = self.nodes[number - 1].lock().unwrap().take();
        stop(running).await;
        self.world.down.lock().unwrap().insert(self.node(number).id);
    }

    async fn serve(
        &self,
        address: &str,
        routes: Routes,
        limits: ConnectionLimits,
    ) -> JoinHandle<()> {
        let listener = self.world.network.listen(address).await.unwrap();
        tokio::spawn(async move {
            let forever = std::future::pending();
            serve(listener, limits, routes, GATE, Arc::new(()), forever, Duration::ZERO).await;
        })
    }

    /// Returns the datanode with this number, from 1.
    pub fn node(&self, number: usize) -> &Arc<Node> {
        &self.world.nodes[number - 1]
    }

    /// Returns the state and faults of the coordinators, locked.
    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.world.state.lock().unwrap()
    }
}

async fn stop(running: Option<JoinHandle<()>>) {
    let running = running.expect("it runs");
    running.abort();
    drop(running.await);
}

fn refusal(code: ErrorCode, message: impl Into<String>) -> Status {
    Failure::new(code, message).into()
}

fn note<T>(world: &World, call: &'static str, request: &Request<T>) {
    let id = request.metadata().get(REQUEST_ID_HEADER).and_then(|id| id.to_str().ok());
    world.request_ids.lock().unwrap().push((call, id.unwrap_or_default().to_owned()));
}

/// Returns a client of a fake cluster. A macro, because this crate does not know the SDK, whose tests
/// use it.
#[macro_export]
macro_rules! client {
    ($cluster:expr) => {
        dfs_client::Client::builder()
            .coordinator($crate::COORDINATOR)
            .components($crate::components!($cluster))
            .connect_lazy()
            .expect("the address is valid")
    };
}

/// Returns the environment of a client that reaches a fake cluster.
#[macro_export]
macro_rules! components {
    ($cluster:expr) => {
        dfs_client::Components {
            network: std::sync::Arc::new($cluster.world.network.clone()),
            random: std::sync::Arc::new($crate::SeededRandom::new(7)),
            hashing: $crate::Hashing::Inline,
            ..Default::default()
        }
    };
}

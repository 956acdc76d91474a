//! A network with a coordinator, its datanodes, and the actions of a client.

pub(crate) mod coordinator;
mod store;
mod stream;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use dfs_chunkstore::{ChunkStore as _, Pool};
use dfs_datanode::{Components, Handle, Service, Settings};
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::WireId as _;
use dfs_proto::{Failure, Issued, OrderParties, Ordered, seal_order, v1};
use dfs_runtime::{JoinSecret, Shutdown, Trigger};
use dfs_transport::{Channels, ClientChannel, MemoryNetwork, Security};
use dfs_types::{
    ChunkId, Crc32c, ErrorCode, Incarnation, NodeId, SealKey, SeededRandom, Sha256, Timestamp,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Response, Status, Streaming};

pub(crate) use coordinator::{CLUSTER, FakeCoordinator};
pub(crate) use store::{Hang, TestStore};
pub(crate) use stream::{Stream, frames};

/// Time limit of every step.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Maximum length of the chunks in these tests.
pub(crate) const CHUNK: u64 = 4 * dfs_types::BLOCK_SIZE as u64;

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the code that a call was refused with.
pub(crate) fn refused<T: Debug>(result: Result<T, Status>) -> ErrorCode {
    Failure::from_status(&result.expect_err("the call should have been refused")).code
}

/// Returns the last message of a reply, which is the result of an order that may take long.
pub(crate) async fn last<T>(reply: Result<Response<Streaming<T>>, Status>) -> Result<T, Status> {
    let (mut messages, mut last) = (reply?.into_inner(), None);
    while let Some(message) = messages.message().await? {
        last = Some(message);
    }
    last.ok_or_else(|| Status::unknown("a reply without a message"))
}

pub(crate) fn settings() -> Settings {
    Settings {
        listen: "node:0".to_owned(),
        http_listen: String::new(),
        coordinators: vec![coordinator::ADDRESS.to_owned()],
        join_secret: JoinSecret::new("secret"),
        // It would read replicas whose reads a test counts.
        scrub_every_ms: 0,
        ..Settings::default()
    }
}

pub(crate) struct Cluster {
    pub(crate) network: MemoryNetwork,
    pub(crate) coordinator: FakeCoordinator,
    pub(crate) channels: Channels,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let network = MemoryNetwork::default();
        let coordinator = FakeCoordinator::start(&network).await;
        let channels = Channels::new(Arc::new(network.clone()), Security::Plaintext);
        Self { network, coordinator, channels }
    }

    /// Starts a datanode, and returns once it is part of the cluster.
    pub(crate) async fn node(&self, id: u128, settings: Settings) -> Node {
        self.node_on(TestStore::new(NodeId(id)), settings).await
    }

    pub(crate) async fn node_on(&self, store: TestStore, settings: Settings) -> Node {
        let drain = Duration::from_millis(settings.drain_ms);
        let components = Components {
            network: Arc::new(self.network.clone()),
            store: Arc::new(store.clone()),
            pool: Pool::inline(),
            random: Arc::new(SeededRandom::new(1)),
        };
        let service = Service::start(settings, components).await.unwrap();
        let handle = service.handle();
        let (stop, shutdown) = Shutdown::new();
        let running = tokio::spawn(service.run(shutdown));
        timeout(PATIENCE, handle.readiness().wait_ready()).await.unwrap();
        let address = format!("node:{}", handle.address().port());
        let channels = self.channels.clone();
        Node { handle, store, address, drain, channels, stop, running }
    }
}

/// A running datanode.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) store: TestStore,
    pub(crate) address: String,
    pub(crate) drain: Duration,
    channels: Channels,
    pub(crate) stop: Trigger,
    pub(crate) running: JoinHandle<()>,
}

impl Node {
    pub(crate) fn channel(&self) -> ClientChannel {
        self.channels.control(&self.address).unwrap()
    }

    pub(crate) fn client(&self) -> DataNodeClient<ClientChannel> {
        DataNodeClient::new(self.channel())
    }

    /// Opens a session.
    pub(crate) async fn prepare(
        &self,
        meta: v1::ChunkMeta,
    ) -> Result<v1::ChunkUploadReady, Status> {
        Ok(self.client().prepare_chunk_upload(meta).await?.into_inner())
    }

    /// Attaches to a session.
    pub(crate) async fn attach(&self, ready: &v1::ChunkUploadReady, number: u64) -> Stream {
        let channel = self.channels.bulk(&self.address, 0).unwrap();
        Stream::attach(channel, ready.session_id.clone(), number).await
    }

    /// Writes a complete chunk.
    pub(crate) async fn write(&self, chunk: u128, data: &[u8]) -> Vec<v1::Receipt> {
        let ready = self.prepare(meta(chunk)).await.unwrap();
        self.finish(&ready, data).await.unwrap()
    }

    /// Sends the bytes of a session.
    pub(crate) async fn finish(
        &self,
        ready: &v1::ChunkUploadReady,
        data: &[u8],
    ) -> Result<Vec<v1::Receipt>, ErrorCode> {
        let mut stream = self.attach(ready, 1).await;
        for frame in frames(data) {
            stream.send(frame).await;
        }
        stream.end().await
    }

    /// Returns its location for other nodes.
    pub(crate) fn location(&self) -> v1::NodeLocation {
        v1::NodeLocation {
            node_id: self.handle.node_id().to_wire(),
            address: self.address.clone(),
            ..v1::NodeLocation::default()
        }
    }
}

/// Returns the id of a node, as in orders.
pub(crate) fn meant(node: u128) -> bytes::Bytes {
    NodeId(node).to_wire()
}

/// Returns the name of the replica of a receipt.
pub(crate) fn replica_of(receipt: &v1::Receipt) -> v1::ReplicaRef {
    v1::ReplicaRef {
        chunk_id: receipt.chunk_id.clone(),
        part: receipt.part,
        disk_id: receipt.disk_id.clone(),
        stamp: receipt.stamp,
    }
}

/// Returns an order sealed by the coordinator for a node.
pub(crate) fn sealed<R: Ordered>(node: u128, request: R) -> R {
    sealed_at(node, coordinator::NOW, request)
}

/// Like [`sealed`], at another time of its clock.
pub(crate) fn sealed_at<R: Ordered>(node: u128, at: Timestamp, request: R) -> R {
    let key = SealKey::from_slice(&coordinator::ORDER_KEY).unwrap();
    let parties =
        OrderParties { cluster: CLUSTER, incarnation: Incarnation(1), node: NodeId(node) };
    seal_order(request, &key, parties, Issued { coordinator: coordinator::INSTANCE, at })
}

/// Returns a chunk as announced by a client.
pub(crate) fn meta(chunk: u128) -> v1::ChunkMeta {
    v1::ChunkMeta {
        cluster_id: CLUSTER.to_wire(),
        chunk_id: ChunkId(chunk).to_wire(),
        max_length: CHUNK,
        inode: 5,
        path: "/file".into(),
        min_replicas: 1,
        ..v1::ChunkMeta::default()
    }
}

/// Returns a chunk as announced by another datanode.
pub(crate) fn replica_meta(chunk: u128) -> v1::ChunkMeta {
    v1::ChunkMeta { is_replica: true, ..meta(chunk) }
}

/// Returns a chunk with these downstream nodes.
pub(crate) fn meta_for(chunk: u128, replicas: &[&Node]) -> v1::ChunkMeta {
    let replicas = replicas.iter().map(|replica| replica.location()).collect();
    v1::ChunkMeta { replicas, ..meta(chunk) }
}

/// Returns an unsealed order to `target` to build a replica of a chunk with these bytes.
pub(crate) async fn build(
    target: &Node,
    chunk: u128,
    data: &[u8],
    sources: &[&Node],
) -> v1::BuildReplicaRequest {
    let mut from = Vec::new();
    for source in sources {
        let held = source.store.memory.replicas(ChunkId(chunk)).await.unwrap();
        let none = v1::ReplicaRef {
            chunk_id: ChunkId(chunk).to_wire(),
            disk_id: source.handle.node_id().to_wire(),
            ..v1::ReplicaRef::default()
        };
        let replica = held.first().map_or(none, |held| held.replica().into());
        from.push(v1::BuildSource { node: Some(source.location()), replica: Some(replica) });
    }
    v1::BuildReplicaRequest {
        part: 0,
        chunk_id: ChunkId(chunk).to_wire(),
        length: data.len() as u64,
        crc32c: Crc32c::of(data).0,
        sha256: Sha256::of(data).0.to_vec().into(),
        sources: from,
        lease_epoch: 1,
        node_id: target.handle.node_id().to_wire(),
        order: None,
        generation: 1,
        replaces: Vec::new(),
    }
}

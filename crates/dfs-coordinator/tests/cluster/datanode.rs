//! A datanode without disks: registers, sends heartbeats, keeps replicas in memory as facts, seals
//! real receipts, and records its orders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_proto::v1::data_node_server::DataNodeServer;
use dfs_proto::v1::membership_client::MembershipClient;
use dfs_proto::{Failure, OrderParties, Ordered, open_order, v1};
use dfs_types::{
    ChunkId, ClusterId, Crc32c, DiskId, ErrorCode, Incarnation, NodeId, Receipt,
    RegistrationNumber, Seal, SealKey, Sha256, Stamp, StreamOpening,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Status;

mod builds;
mod handler;
mod orders;

use self::builds::Builds;
use self::handler::Handler;

/// A replica of the fake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldReplica {
    pub(crate) length: u64,
    pub crc32c: Crc32c,
    pub(crate) sha256: Sha256,
    pub(crate) stamp: Stamp,
}

#[derive(Default)]
struct State {
    cluster: bytes::Bytes,
    incarnation: u64,
    registration: u64,
    key: Option<SealKey>,
    order_key: Option<SealKey>,
    /// Opens its heartbeat streams with an invented key.
    lacks_the_key: bool,
    replicas: BTreeMap<ChunkId, HeldReplica>,
    next_stamp: u64,
    epoch: u64,
    deletes: Vec<(ChunkId, Stamp)>,
    replicated: Vec<ChunkId>,
    /// Verdicts to report until they are settled.
    verdicts: Vec<v1::ReplicaVerdict>,
    /// Settled verdicts by number, each with the replica and what the record said of it. A verdict
    /// is settled again if it was repeated meanwhile.
    settled: BTreeMap<u64, (ChunkId, Stamp, v1::ReplicaCondition)>,
    /// Replicas that a verification finds bad.
    bad: BTreeSet<(ChunkId, Stamp)>,
    verified: Vec<ChunkId>,
    /// Replies to orders to adopt a replica get lost.
    loses_adoptions: bool,
    standing: i32,
    must_register: bool,
    ended_with: Option<ErrorCode>,
    orders: u64,
    is_full: bool,
    free: u64,
    /// Bytes of its disk, if its free bytes follow from its replicas.
    capacity: Option<u64>,
    zone: String,
    /// Its disk was replaced by an empty one.
    has_new_disk: bool,
    /// Its disk is out of service: replicas on it are not found.
    has_failed_disk: bool,
    /// Its disk missed a registration.
    has_returning_disk: bool,
    /// Its disk was listed completely since it returned.
    is_listed: bool,
    /// For each order to settle its disk, whether the disk had been listed.
    settlements: Vec<bool>,
    /// Its disk is to be emptied.
    is_retiring: bool,
    /// It does not learn that.
    ignores_retiring: bool,
    takes_no_more: bool,
    lists_incompletely: bool,
    refuses_deletes: bool,
    /// Chunks that it leaves out of orders for several; `None` if it does not know such orders.
    small_builds_without: Option<BTreeSet<ChunkId>>,
    /// Breaks off orders for several.
    breaks_off_small_builds: bool,
    /// Numbers of replicas in the orders for several.
    small_orders: Vec<usize>,
}

/// Number of processes so far.
static INSTANCES: AtomicU64 = AtomicU64::new(1);

/// Nodes that BuildReplica can pull from, by address.
pub(crate) type Neighbours = Arc<Mutex<BTreeMap<String, Arc<FakeDataNode>>>>;

pub(crate) struct FakeDataNode {
    pub(crate) id: NodeId,
    pub(crate) disk: DiskId,
    pub(crate) address: String,
    coordinator: String,
    neighbours: Neighbours,
    /// Distinguishes this process from others.
    instance: u64,
    state: Mutex<State>,
    builds: Builds,
    verifies: watch::Sender<bool>,
    /// Verifications that wait.
    waiting: AtomicUsize,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl FakeDataNode {
    /// Starts a node without registering it.
    pub(crate) async fn serve(id: u128, coordinator: &str, neighbours: &Neighbours) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = Arc::new(Self {
            id: NodeId(id),
            disk: DiskId(id + 1_000),
            address: address.clone(),
            coordinator: coordinator.to_owned(),
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            neighbours: neighbours.clone(),
            state: Mutex::new(State { next_stamp: 1, free: 1 << 40, ..State::default() }),
            builds: Builds::default(),
            verifies: watch::Sender::new(true),
            waiting: AtomicUsize::new(0),
            tasks: Mutex::default(),
        });
        neighbours.lock().unwrap().insert(address, node.clone());
        let server = tonic::transport::Server::builder()
            .add_service(DataNodeServer::new(Handler(node.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        node.tasks.lock().unwrap().push(tokio::spawn(async move {
            server.await.unwrap();
        }));
        node
    }

    /// Reports its disk as healthy even while it is to be emptied.
    pub(crate) fn ignore_retiring(&self) {
        self.state.lock().unwrap().ignores_retiring = true;
    }

    /// Follows orders for several small replicas from now on, but leaves these out.
    pub(crate) fn build_small_without(&self, chunks: impl IntoIterator<Item = ChunkId>) {
        let chunks = chunks.into_iter().collect();
        self.state.lock().unwrap().small_builds_without = Some(chunks);
    }

    /// Breaks off orders for several small replicas from now on, or no longer.
    pub(crate) fn break_off_small_builds(&self, breaks_off: bool) {
        self.state.lock().unwrap().breaks_off_small_builds = breaks_off;
    }

    /// Returns the numbers of replicas in the orders for several small ones.
    pub(crate) fn small_orders(&self) -> Vec<usize> {
        self.state.lock().unwrap().small_orders.clone()
    }

    pub(crate) fn refuse_deletes(&self) {
        self.state.lock().unwrap().refuses_deletes = true;
    }

    /// Holds the reply to each verification until this is called with `false`.
    pub(crate) fn hold_verifications(&self, holds: bool) {
        self.verifies.send_replace(!holds);
    }

    pub(crate) fn held_verifications(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Stops reading the uploads that it accepts.
    pub(crate) fn take_no_more(&self) {
        self.state.lock().unwrap().takes_no_more = true;
    }

    fn disks(&self) -> Vec<v1::Disk> {
        let state = self.state.lock().unwrap();
        let disk = DiskId(self.disk.0 + u128::from(state.has_new_disk));
        let used: u64 = state.replicas.values().map(|replica| replica.length).sum();
        vec![v1::Disk {
            disk_id: disk.to_bytes().to_vec().into(),
            capacity: state.capacity.unwrap_or(1 << 40),
            free: state.capacity.map_or(state.free, |capacity| capacity.saturating_sub(used)),
            chunks: state.replicas.len() as u64,
            state: if state.has_failed_disk {
                v1::DiskState::Failed.into()
            } else if state.has_returning_disk {
                v1::DiskState::Returning.into()
            } else if state.is_retiring {
                v1::DiskState::Retiring.into()
            } else {
                v1::DiskState::Healthy.into()
            },
            ..v1::Disk::default()
        }]
    }

    pub(crate) async fn membership(&self, at: &str) -> MembershipClient<tonic::transport::Channel> {
        MembershipClient::new(super::channel(at).await)
    }

    pub(crate) fn registration_request(&self, secret: &str) -> v1::RegisterRequest {
        let disks = self.disks();
        let state = self.state.lock().unwrap();
        v1::RegisterRequest {
            join_secret: secret.to_owned(),
            cluster_id: state.cluster.clone(),
            incarnation: state.incarnation,
            node_id: self.id.to_bytes().to_vec().into(),
            registration: state.registration,
            address: self.address.clone(),
            level: dfs_types::Level::NEWEST.0,
            version: "test".to_owned(),
            zone: state.zone.clone(),
            disks,
            node_secret: self.secret(),
            instance_id: self.instance,
            ..v1::RegisterRequest::default()
        }
    }

    /// Registers; on success writes the new number "on the disks".
    pub(crate) async fn register(&self, secret: &str) -> Result<v1::RegisterResponse, Status> {
        let request = self.registration_request(secret);
        let answer = self.membership(&self.coordinator).await.register(request).await?.into_inner();
        let mut state = self.state.lock().unwrap();
        state.cluster = answer.cluster_id.clone();
        state.incarnation = answer.incarnation;
        state.registration = answer.registration;
        state.key = SealKey::from_slice(&answer.node_key);
        state.order_key = SealKey::from_slice(&answer.order_key);
        if answer.are_disks_returning {
            (state.has_returning_disk, state.is_listed) = (true, false);
        }
        Ok(answer)
    }

    /// Returns the secret, equal for all processes with the disks of one node.
    fn secret(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&Sha256::of(&self.id.to_bytes()).0)
    }

    /// Has a copy of the disks of `other`.
    pub(crate) fn copy_disks_of(&self, other: &Self) {
        let mut state = self.state.lock().unwrap();
        let theirs = other.state.lock().unwrap();
        state.cluster = theirs.cluster.clone();
        state.incarnation = theirs.incarnation;
        state.registration = theirs.registration;
        state.replicas = theirs.replicas.clone();
        state.next_stamp = theirs.next_stamp;
    }

    /// Poses as `other`, with its key.
    pub(crate) fn be(&self, other: &Self) {
        self.pretend_to_be(other);
        let mut state = self.state.lock().unwrap();
        state.key = other.state.lock().unwrap().key.clone();
        state.lacks_the_key = false;
    }

    /// Poses as `other`, without its key.
    pub(crate) fn pretend_to_be(&self, other: &Self) {
        let mut state = self.state.lock().unwrap();
        let theirs = other.state.lock().unwrap();
        state.cluster = theirs.cluster.clone();
        state.incarnation = theirs.incarnation;
        state.registration = theirs.registration;
        state.lacks_the_key = true;
    }

    /// Follows an order only if it is sealed for this node.
    fn open<R: Ordered>(&self, request: &mut R) -> Result<(), Status> {
        let state = self.state.lock().unwrap();
        let parties = OrderParties {
            cluster: ClusterId::from_slice(&state.cluster).unwrap(),
            incarnation: Incarnation(state.incarnation),
            node: self.id,
        };
        let key = state.order_key.as_ref().unwrap();
        let opened = open_order(request, key, parties);
        opened.map(drop).map_err(|error| Status::unauthenticated(error.to_string()))
    }

    pub(crate) fn registration(&self) -> u64 {
        self.state.lock().unwrap().registration
    }

    pub(crate) fn set_registration(&self, number: u64) {
        self.state.lock().unwrap().registration = number;
    }

    /// Starts heartbeats, and returns once the first one got a reply.
    pub(crate) async fn beat(self: &Arc<Self>) {
        self.beat_at(&self.coordinator).await;
    }

    /// Starts heartbeats to another coordinator than the one it registered with.
    pub(crate) async fn beat_at(self: &Arc<Self>, coordinator: &str) {
        let before = self.orders();
        let (node, at) = (self.clone(), coordinator.to_owned());
        let task = tokio::spawn(async move { node.beat_forever(&at).await });
        self.tasks.lock().unwrap().push(task);
        super::eventually("a heartbeat is answered", || async { self.orders() > before }).await;
    }

    async fn beat_forever(self: Arc<Self>, coordinator: &str) {
        let (reports, stream) = mpsc::channel(1);
        let mut client = self.membership(coordinator).await;
        let first = self.report(1);
        reports.send(first).await.unwrap();
        let Ok(orders) = client.heartbeat(ReceiverStream::new(stream)).await else {
            self.state.lock().unwrap().must_register = true;
            return;
        };
        let mut orders = orders.into_inner();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let mut sequence = 1;
        loop {
            tokio::select! {
                order = orders.next() => {
                    let order = match order {
                        Some(Ok(order)) => order,
                        Some(Err(status)) => {
                            let code = Failure::from_status(&status).code;
                            self.state.lock().unwrap().ended_with = Some(code);
                            return;
                        }
                        None => return,
                    };
                    let mut state = self.state.lock().unwrap();
                    state.orders += 1;
                    state.standing = order.state;
                    state.is_retiring =
                        !order.retiring_disks.is_empty() && !state.ignores_retiring;
                    state.must_register |= order.must_register;
                    for settled in order.settled {
                        state.verdicts.retain(|verdict| {
                            verdict.replica != settled.replica || verdict.number > settled.number
                        });
                        let (number, condition) = (settled.number, settled.condition());
                        let replica = settled.replica.unwrap();
                        let chunk = ChunkId::from_slice(&replica.chunk_id).unwrap();
                        state.settled.insert(number, (chunk, Stamp(replica.stamp), condition));
                    }
                }
                _ = tick.tick() => {
                    sequence += 1;
                    if reports.send(self.report(sequence)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn report(&self, sequence: u64) -> v1::HeartbeatReport {
        let disks = self.disks();
        let state = self.state.lock().unwrap();
        let opening = StreamOpening {
            cluster: ClusterId::from_slice(&state.cluster).unwrap_or_default(),
            incarnation: Incarnation(state.incarnation),
            node: self.id,
            registration: RegistrationNumber(state.registration),
            instance: self.instance,
            stream: 0,
        };
        let invented = SealKey::from_slice(&[3; 32]);
        let key = if state.lacks_the_key { &invented } else { &state.key };
        let proof = key.as_ref().map(|key| opening.seal(key).0.to_vec()).unwrap_or_default();
        v1::HeartbeatReport {
            node_id: self.id.to_bytes().to_vec().into(),
            registration: state.registration,
            disks,
            is_full: state.is_full,
            is_stopping: false,
            sessions: 0,
            verdicts: state.verdicts.clone(),
            sequence,
            instance_id: self.instance,
            incarnation: state.incarnation,
            stream: 0,
            proof: proof.into(),
            build_weight: 32,
        }
    }

    /// Replaces its disk and loses all replicas.
    pub(crate) fn replace_disk(&self) {
        let mut state = self.state.lock().unwrap();
        state.replicas.clear();
        state.has_new_disk = true;
    }

    /// Stops sending heartbeats. The first task is the server.
    pub(crate) fn silence(&self) {
        for task in self.tasks.lock().unwrap().drain(1..) {
            task.abort();
        }
    }

    /// Writes a replica and seals its receipt, as at the end of a session.
    pub(crate) fn write(&self, chunk: ChunkId, data: &[u8]) -> Receipt {
        self.write_sum(chunk, data.len() as u64, Crc32c::of(data), Sha256::of(data))
    }

    fn write_sum(&self, chunk: ChunkId, length: u64, crc32c: Crc32c, sha256: Sha256) -> Receipt {
        let mut state = self.state.lock().unwrap();
        let stamp = Stamp(state.next_stamp);
        state.next_stamp += 1;
        state.replicas.insert(chunk, HeldReplica { length, crc32c, sha256, stamp });
        let unsealed = Receipt {
            part: dfs_types::Part::WHOLE,
            chunk,
            length,
            crc32c,
            node: self.id,
            disk: DiskId(self.disk.0 + u128::from(state.has_new_disk)),
            stamp,
            registration: RegistrationNumber(state.registration),
            seal: Seal([0; 32]),
        };
        unsealed.sealed(state.key.as_ref().unwrap())
    }

    pub(crate) fn holds(&self, chunk: ChunkId) -> Option<HeldReplica> {
        self.state.lock().unwrap().replicas.get(&chunk).copied()
    }

    /// Loses a replica unnoticed.
    pub(crate) fn lose(&self, chunk: ChunkId) -> HeldReplica {
        self.state.lock().unwrap().replicas.remove(&chunk).unwrap()
    }

    /// Holds a replica that was lost again.
    pub(crate) fn find(&self, chunk: ChunkId, replica: HeldReplica) {
        self.state.lock().unwrap().replicas.insert(chunk, replica);
    }

    /// Breaks off its lists.
    pub(crate) fn list_incompletely(&self, incompletely: bool) {
        self.state.lock().unwrap().lists_incompletely = incompletely;
    }

    fn disk_now(&self) -> DiskId {
        DiskId(self.disk.0 + u128::from(self.state.lock().unwrap().has_new_disk))
    }

    /// Returns the replicas of a range.
    fn in_range(&self, from: &[u8], to: &[u8]) -> Vec<(ChunkId, HeldReplica)> {
        let from = ChunkId::from_slice(from).unwrap_or(ChunkId::MIN);
        let to = ChunkId::from_slice(to);
        let state = self.state.lock().unwrap();
        let found =
            state.replicas.range(from..).filter(|(chunk, _)| to.is_none_or(|to| **chunk < to));
        found.map(|(chunk, replica)| (*chunk, *replica)).collect()
    }

    pub(crate) fn chunks(&self) -> usize {
        self.state.lock().unwrap().replicas.len()
    }

    pub(crate) fn deletes(&self) -> Vec<(ChunkId, Stamp)> {
        self.state.lock().unwrap().deletes.clone()
    }

    pub(crate) fn replicated(&self) -> Vec<ChunkId> {
        self.state.lock().unwrap().replicated.clone()
    }

    pub(crate) fn orders(&self) -> u64 {
        self.state.lock().unwrap().orders
    }

    pub(crate) fn node_state(&self) -> v1::NodeState {
        v1::NodeState::try_from(self.state.lock().unwrap().standing).unwrap()
    }

    /// Returns the error that ended a heartbeat stream.
    pub(crate) fn ended_with(&self) -> Option<ErrorCode> {
        self.state.lock().unwrap().ended_with
    }

    pub(crate) fn must_register(&self) -> bool {
        self.state.lock().unwrap().must_register
    }

    fn name(&self, chunk: ChunkId, stamp: Stamp) -> v1::ReplicaRef {
        v1::ReplicaRef {
            chunk_id: chunk.to_bytes().to_vec().into(),
            part: 0,
            disk_id: self.disk.to_bytes().to_vec().into(),
            stamp: stamp.0,
        }
    }

    /// Turns a replica bad, and reports it until that is settled.
    pub(crate) fn spoil(&self, chunk: ChunkId) {
        let stamp = self.state.lock().unwrap().replicas[&chunk].stamp;
        self.state.lock().unwrap().bad.insert((chunk, stamp));
        self.accuse(chunk);
    }

    /// Reports a replica as bad until that is settled, although it is sound. Returns the number of
    /// the verdict.
    pub(crate) fn accuse(&self, chunk: ChunkId) -> u64 {
        let number = self.next_stamp().0;
        self.judge(chunk, number, v1::ReplicaCondition::Bad)
    }

    /// Reports a replica as sound. Returns the number of the verdict.
    pub(crate) fn acquit(&self, chunk: ChunkId) -> u64 {
        let number = self.next_stamp().0;
        self.judge(chunk, number, v1::ReplicaCondition::Sound)
    }

    /// Reports a replica as sound, by a verdict older than all others. Returns its number.
    pub(crate) fn acquit_late(&self, chunk: ChunkId) -> u64 {
        self.judge(chunk, 1, v1::ReplicaCondition::Sound)
    }

    fn judge(&self, chunk: ChunkId, number: u64, condition: v1::ReplicaCondition) -> u64 {
        let mut state = self.state.lock().unwrap();
        let stamp = state.replicas[&chunk].stamp;
        let replica = Some(self.name(chunk, stamp));
        let condition = condition.into();
        state.verdicts.push(v1::ReplicaVerdict { replica, number, condition, block: 0 });
        number
    }

    /// Returns what the record said of the replica when this verdict was settled.
    pub(crate) fn settled_as(&self, number: u64) -> Option<v1::ReplicaCondition> {
        self.state.lock().unwrap().settled.get(&number).map(|(_, _, condition)| *condition)
    }

    /// Returns the replicas whose verdicts were settled, each verdict once.
    pub(crate) fn settled(&self) -> Vec<(ChunkId, Stamp)> {
        let state = self.state.lock().unwrap();
        state.settled.values().map(|(chunk, stamp, _)| (*chunk, *stamp)).collect()
    }

    /// Returns the chunks whose replicas were verified.
    pub(crate) fn verified(&self) -> Vec<ChunkId> {
        self.state.lock().unwrap().verified.clone()
    }

    /// Loses the replies to orders to adopt a replica.
    pub(crate) fn lose_adoptions(&self, loses: bool) {
        self.state.lock().unwrap().loses_adoptions = loses;
    }

    /// Turns a replica bad unnoticed.
    pub(crate) fn rot(&self, chunk: ChunkId) {
        let mut state = self.state.lock().unwrap();
        let stamp = state.replicas[&chunk].stamp;
        state.bad.insert((chunk, stamp));
    }

    /// Returns the stamp of the next replica.
    pub(crate) fn next_stamp(&self) -> Stamp {
        let mut state = self.state.lock().unwrap();
        state.next_stamp += 1;
        Stamp(state.next_stamp - 1)
    }

    /// Takes its disk out of service, or back into it.
    pub(crate) fn return_disk(&self) {
        let mut state = self.state.lock().unwrap();
        (state.has_returning_disk, state.is_listed) = (true, false);
    }

    /// Returns for each order to settle its disk whether the disk had been listed before.
    pub(crate) fn settlements(&self) -> Vec<bool> {
        self.state.lock().unwrap().settlements.clone()
    }

    pub(crate) fn set_failed_disk(&self, is_failed: bool) {
        self.state.lock().unwrap().has_failed_disk = is_failed;
    }

    pub(crate) fn set_free(&self, free: u64) {
        self.state.lock().unwrap().free = free;
    }

    /// Limits its disk to these bytes.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state.lock().unwrap().capacity = Some(bytes);
    }

    /// Returns the bytes of its replicas.
    pub(crate) fn used(&self) -> u64 {
        self.state.lock().unwrap().replicas.values().map(|replica| replica.length).sum()
    }

    /// Registers again, in this zone.
    pub(crate) async fn set_zone(self: &Arc<Self>, zone: &str) {
        self.state.lock().unwrap().zone = zone.to_owned();
        self.silence();
        self.register("secret").await.unwrap();
        self.beat().await;
    }

    pub(crate) fn set_refuses(&self, refuses: bool) {
        self.state.lock().unwrap().is_full = refuses;
    }
}

pub(crate) fn to_wire(receipt: &Receipt) -> v1::Receipt {
    v1::Receipt {
        part: 0,
        chunk_id: receipt.chunk.to_bytes().to_vec().into(),
        length: receipt.length,
        crc32c: receipt.crc32c.0,
        node_id: receipt.node.to_bytes().to_vec().into(),
        disk_id: receipt.disk.to_bytes().to_vec().into(),
        stamp: receipt.stamp.0,
        registration: receipt.registration.0,
        seal: receipt.seal.0.to_vec().into(),
    }
}

/// Returns a chunk as ConfirmUpload names it.
pub(crate) fn written(
    chunk: ChunkId,
    file_offset: u64,
    data: &[u8],
    receipts: &[Receipt],
) -> v1::WrittenChunk {
    v1::WrittenChunk {
        chunk_id: chunk.to_bytes().to_vec().into(),
        file_offset,
        length: data.len() as u64,
        crc32c: Crc32c::of(data).0,
        sha256: Sha256::of(data).0.to_vec().into(),
        receipts: receipts.iter().map(to_wire).collect(),
    }
}

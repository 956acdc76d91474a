//! A fake coordinator without metadata: registers nodes like the real one, replies to heartbeats,
//! and records them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_proto::v1::membership_server::{Membership, MembershipServer};
use dfs_proto::{Failure, v1};
use dfs_transport::{ConnectionLimits, Gate, MemoryNetwork, Network as _, Security, Server, serve};
use dfs_types::{ClusterId, ErrorCode, NodeId, Timestamp};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

const GATE: Gate = Gate::new(Server::Coordinator, Security::Plaintext);

/// Address of the coordinator.
pub(crate) const ADDRESS: &str = "coordinator:7070";
pub(crate) const CLUSTER: ClusterId = ClusterId(77);
/// The node key of every registration.
pub(crate) const KEY: [u8; 32] = [7; 32];
/// The order key of every registration.
pub(crate) const ORDER_KEY: [u8; 32] = [8; 32];
/// Instance id of the coordinator, and the time of its clock.
pub(crate) const INSTANCE: u64 = 5;
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

#[derive(Default)]
struct State {
    /// The last number issued, by node.
    given: BTreeMap<NodeId, u64>,
    /// The number in use, by node.
    used: BTreeMap<NodeId, u64>,
    reports: Vec<v1::HeartbeatReport>,
    settles_verdicts: bool,
    are_beats_rare: bool,
    /// No record says what the disks of nodes hold that register from now on.
    has_no_records: bool,
    /// Reports by receiving address.
    heard: BTreeMap<String, u64>,
    /// The current stream by coordinator, and the total number of streams.
    in_charge: BTreeMap<u32, u64>,
    streams: u64,
}

/// A fake coordinator. Clones share the contents of a metadata store.
#[derive(Clone, Default)]
pub(crate) struct FakeCoordinator(Arc<Mutex<State>>);

/// One coordinator, as reached by one of its addresses.
#[derive(Clone)]
struct Door {
    coordinator: FakeCoordinator,
    number: u32,
    address: String,
}

impl FakeCoordinator {
    pub(crate) async fn start(network: &MemoryNetwork) -> Self {
        let coordinator = Self::default();
        coordinator.listen(network, 0, ADDRESS).await;
        coordinator
    }

    /// Listens at another address: as the same coordinator if the number is in use.
    pub(crate) async fn listen(
        &self,
        network: &MemoryNetwork,
        number: u32,
        address: &str,
    ) -> JoinHandle<()> {
        let door = Door { coordinator: self.clone(), number, address: address.to_owned() };
        let routes = Routes::new(MembershipServer::new(door));
        let listener = network.listen(address).await.unwrap();
        let (limits, never) = (ConnectionLimits::default(), std::future::pending());
        tokio::spawn(async move {
            serve(listener, limits, routes, GATE, Arc::new(()), never, Duration::ZERO).await;
        })
    }

    /// Returns the number of reports to an address.
    pub(crate) fn heard(&self, address: &str) -> u64 {
        self.0.lock().unwrap().heard.get(address).copied().unwrap_or(0)
    }

    /// Returns the number of heartbeat streams so far.
    pub(crate) fn streams(&self) -> u64 {
        self.0.lock().unwrap().streams
    }

    /// Returns the newest number issued to a node.
    pub(crate) fn registration(&self, node: NodeId) -> u64 {
        self.0.lock().unwrap().given.get(&node).copied().unwrap_or(0)
    }

    /// Returns the last report of a node.
    pub(crate) fn last_report(&self, node: NodeId) -> Option<v1::HeartbeatReport> {
        let state = self.0.lock().unwrap();
        state.reports.iter().rev().find(|report| node_of(report) == node).cloned()
    }

    /// Lets nodes that register from now on send heartbeats rarely, for tests of long times.
    pub(crate) fn make_beats_rare(&self) {
        self.0.lock().unwrap().are_beats_rare = true;
    }

    /// Makes the disks of nodes that register from now on returning.
    pub(crate) fn lose_records(&self) {
        self.0.lock().unwrap().has_no_records = true;
    }

    /// Settles all verdicts from now on.
    pub(crate) fn settle_verdicts(&self) {
        self.0.lock().unwrap().settles_verdicts = true;
    }

    /// Returns the verdicts in the last report of a node.
    pub(crate) fn verdicts(&self, node: NodeId) -> Vec<v1::ReplicaVerdict> {
        self.last_report(node).map(|report| report.verdicts).unwrap_or_default()
    }

    fn order(&self, report: v1::HeartbeatReport) -> v1::HeartbeatOrder {
        let mut state = self.0.lock().unwrap();
        let node = node_of(&report);
        // The first heartbeat puts a number into use, and ends the previous one.
        let is_given = state.given.get(&node) == Some(&report.registration);
        if is_given {
            state.used.insert(node, report.registration);
        }
        let settle = |verdict: &v1::ReplicaVerdict| v1::SettledVerdict {
            replica: verdict.replica.clone(),
            number: verdict.number,
            condition: verdict.condition,
        };
        let verdicts = report.verdicts.iter().filter(|_| state.settles_verdicts);
        let settled = verdicts.map(settle).collect();
        let order = v1::HeartbeatOrder {
            settled,
            sequence: report.sequence,
            state: v1::NodeState::Active.into(),
            must_register: !is_given,
            now_ms: NOW.millis(),
            coordinator: INSTANCE,
            ..v1::HeartbeatOrder::default()
        };
        state.reports.push(report);
        order
    }
}

fn node_of(report: &v1::HeartbeatReport) -> NodeId {
    NodeId::from_slice(&report.node_id).unwrap()
}

#[tonic::async_trait]
impl Membership for Door {
    type HeartbeatStream = BoxStream<'static, Result<v1::HeartbeatOrder, Status>>;

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let request = request.into_inner();
        let node = NodeId::from_slice(&request.node_id).unwrap();
        let mut state = self.coordinator.0.lock().unwrap();
        let used = state.used.get(&node).copied().unwrap_or(0);
        if request.registration != used {
            let what = "the disks are an old image";
            return Err(Failure::new(ErrorCode::WrongCluster, what).into());
        }
        let number = state.given.get(&node).copied().unwrap_or(0) + 1;
        state.given.insert(node, number);
        Ok(Response::new(v1::RegisterResponse {
            cluster_id: CLUSTER.to_bytes().to_vec().into(),
            incarnation: 1,
            registration: number,
            node_key: KEY.to_vec().into(),
            order_key: ORDER_KEY.to_vec().into(),
            heartbeat_interval_ms: if state.are_beats_rare { 30_000 } else { 100 },
            level: dfs_types::Level::NEWEST.0,
            state: v1::NodeState::Active.into(),
            are_disks_returning: state.has_no_records,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatReport>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let door = self.clone();
        let stream = {
            let mut state = self.coordinator.0.lock().unwrap();
            state.streams += 1;
            let stream = state.streams;
            state.in_charge.insert(self.number, stream);
            stream
        };
        let orders = request.into_inner().map(move |report| {
            let report = report?;
            {
                let mut state = door.coordinator.0.lock().unwrap();
                // Where this matters, the tests run one process per node.
                if door.number > 0 && state.in_charge.get(&door.number) != Some(&stream) {
                    let what = "another stream is current";
                    return Err(Failure::new(ErrorCode::Stale, what).into());
                }
                *state.heard.entry(door.address.clone()).or_default() += 1;
            }
            Ok(door.coordinator.order(report))
        });
        Ok(Response::new(orders.boxed()))
    }
}

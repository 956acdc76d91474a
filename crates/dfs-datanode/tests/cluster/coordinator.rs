//! A coordinator without metadata: registers nodes as the real one does, answers heartbeats, and
//! keeps book of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_proto::v1::membership_server::{Membership, MembershipServer};
use dfs_proto::{Failure, v1};
use dfs_transport::{MemoryNetwork, Network as _, Observer, serve};
use dfs_types::{ClusterId, ErrorCode, NodeId};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

/// Where it listens.
pub(crate) const ADDRESS: &str = "coordinator:7070";
pub(crate) const CLUSTER: ClusterId = ClusterId(77);
/// The key of every registration.
pub(crate) const KEY: [u8; 32] = [7; 32];

#[derive(Default)]
struct State {
    /// The last number given out, by node.
    given: BTreeMap<NodeId, u64>,
    /// The number in use, by node.
    used: BTreeMap<NodeId, u64>,
    reports: Vec<v1::HeartbeatReport>,
}

/// The coordinator. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeCoordinator(Arc<Mutex<State>>);

impl FakeCoordinator {
    pub(crate) async fn start(network: &MemoryNetwork) -> Self {
        let coordinator = Self::default();
        let routes = Routes::new(MembershipServer::new(coordinator.clone()));
        let listener = network.listen(ADDRESS).await.unwrap();
        let never = std::future::pending();
        tokio::spawn(serve(listener, routes, Arc::new(Nobody), never, Duration::ZERO));
        coordinator
    }

    /// The last report of a node.
    pub(crate) fn last_report(&self, node: NodeId) -> Option<v1::HeartbeatReport> {
        let state = self.0.lock().unwrap();
        state.reports.iter().rev().find(|report| node_of(report) == node).cloned()
    }

    fn order(&self, report: v1::HeartbeatReport) -> v1::HeartbeatOrder {
        let mut state = self.0.lock().unwrap();
        let node = node_of(&report);
        // A number is taken into use by its first heartbeat, and ends the one before.
        let is_given = state.given.get(&node) == Some(&report.registration);
        if is_given {
            state.used.insert(node, report.registration);
        }
        let order = v1::HeartbeatOrder {
            sequence: report.sequence,
            state: v1::NodeState::Active.into(),
            must_register: !is_given,
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
impl Membership for FakeCoordinator {
    type HeartbeatStream = BoxStream<'static, Result<v1::HeartbeatOrder, Status>>;

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let request = request.into_inner();
        let node = NodeId::from_slice(&request.node_id).unwrap();
        let mut state = self.0.lock().unwrap();
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
            heartbeat_interval_ms: 100,
            state: v1::NodeState::Active.into(),
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatReport>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let coordinator = self.clone();
        let orders = request.into_inner().map(move |report| Ok(coordinator.order(report?)));
        Ok(Response::new(orders.boxed()))
    }
}

struct Nobody;

impl Observer for Nobody {
    fn answered(&self, _: &str, _: Code, _: Duration) {}
}

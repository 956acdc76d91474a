//! What the operator asks of a cluster's coordinators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Detail, Failure, v1};
use dfs_transport::{Channels, ClientChannel, Security, TcpNetwork};
use dfs_types::{ClusterId, ErrorCode, NodeId, NodeState};
use tokio::time::{Instant, timeout_at};

/// How long the coordinators of a cluster have for one answer, all together.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long one of several has before the next is asked.
const ONE_DEADLINE: Duration = Duration::from_secs(2);

/// Where a cluster's coordinators may be reached, `host:port` each.
pub type Addresses = Vec<String>;

/// What became of asking for the picture. Not getting one is an answer, too.
#[derive(Debug, Clone, PartialEq)]
pub enum Snapshot {
    /// The cluster is there.
    Known(Box<ClusterSnapshot>),
    /// A coordinator answers and waits for the cluster to be made.
    Uninitialised,
    /// None answered; for people.
    Unreachable(String),
}

/// One consistent picture of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSnapshot {
    /// Which cluster it is.
    pub id: ClusterId,
    /// Replicas new files get.
    pub replication_factor: i32,
    /// Durable replicas without which no write is acknowledged.
    pub min_write_replicas: i32,
    /// Its nodes, by name of their pod where their address names one.
    pub nodes: Vec<Node>,
    /// How the data is; nothing while the first scan runs.
    pub data: Option<Data>,
    /// Version of the coordinator that answered.
    pub version: String,
    /// Address of the coordinator that runs the background work.
    pub lease_holder: String,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// `host:port`.
    pub address: String,
    /// Its failure domain.
    pub zone: String,
    /// The Kubernetes node.
    pub host: String,
    /// What the cluster takes it for.
    pub state: NodeState,
    /// Version of its program.
    pub version: String,
    /// Bytes it may use.
    pub capacity: u64,
    /// Bytes it uses.
    pub used: u64,
    /// Chunks on it.
    pub chunks: u64,
    /// How long its maintenance lasts if nobody ends it.
    pub maintenance_left: Option<Duration>,
}

/// How the data is, in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Data {
    /// With fewer good replicas than wanted.
    pub under_replicated: u64,
    /// With no replica that can be reached.
    pub missing: u64,
    /// Replicas found bad.
    pub bad_replicas: u64,
    /// Replicas being made.
    pub repairing: u64,
}

/// The answer to a request for maintenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maintenance {
    /// The node may be stopped.
    Granted,
    /// It may not; why, for people.
    Refused(String),
}

/// A call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// A coordinator refused.
    #[error("the coordinator refuses {call}: {failure}")]
    Refused {
        /// The call.
        call: &'static str,
        /// What it says.
        failure: Failure,
    },
    /// None answered.
    #[error("no coordinator answers {call}: {what}")]
    Unreachable {
        /// The call.
        call: &'static str,
        /// Why.
        what: String,
    },
}

/// The coordinators of a cluster. Every call is idempotent.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// The picture, within 5 s.
    async fn snapshot(&self, at: &Addresses) -> Snapshot;

    /// Makes the cluster; says whether it is new.
    async fn init(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication_factor: i32,
        min_write_replicas: Option<i32>,
    ) -> Result<bool, CallError>;

    /// Sets how many replicas new files get.
    async fn set_replication(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication_factor: i32,
        min_write_replicas: Option<i32>,
    ) -> Result<(), CallError>;

    /// Makes a joining node active.
    async fn admit(&self, at: &Addresses, id: ClusterId, node: NodeId) -> Result<(), CallError>;

    /// Announces that a node stops for at most `ttl`, if the data stands it; zero ends that.
    async fn maintenance(
        &self,
        at: &Addresses,
        id: ClusterId,
        node: NodeId,
        ttl: Duration,
    ) -> Result<Maintenance, CallError>;
}

/// Coordinators over gRPC.
#[derive(Debug)]
pub struct GrpcCoordinator {
    channels: Channels,
}

impl GrpcCoordinator {
    /// Over TCP, in plaintext.
    pub fn new() -> Self {
        Self { channels: Channels::new(Arc::new(TcpNetwork), Security::Plaintext) }
    }

    /// Over these channels.
    pub fn over(channels: Channels) -> Self {
        Self { channels }
    }

    /// Asks one after the other until one answers, and be it with a refusal.
    async fn ask<T, F>(
        &self,
        call: &'static str,
        at: &Addresses,
        ask: impl Fn(AdminClient<ClientChannel>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let deadline = Instant::now() + DEADLINE;
        let mut what = "no coordinator pod has an address yet".to_owned();
        for (left, address) in at.iter().enumerate().map(|(i, a)| (at.len() - i, a)) {
            let until =
                if left > 1 { deadline.min(Instant::now() + ONE_DEADLINE) } else { deadline };
            let channel = match self.channels.control(address) {
                Ok(channel) => channel,
                Err(error) => {
                    what = error.to_string();
                    continue;
                }
            };
            match timeout_at(until, ask(AdminClient::new(channel))).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => {
                    let failure = Failure::from_status(&status);
                    if is_uninitialised(&failure) || !is_silence(&failure) {
                        return Err(CallError::Refused { call, failure });
                    }
                    what = format!("{address}: {failure}");
                }
                Err(_) => {
                    self.channels.redial(address);
                    what = format!("{address}: no answer in time");
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(CallError::Unreachable { call, what })
    }
}

impl Default for GrpcCoordinator {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether it is as if nobody had answered, so that another coordinator may be asked.
fn is_silence(failure: &Failure) -> bool {
    failure.code == ErrorCode::Unavailable
}

#[async_trait]
impl Coordinator for GrpcCoordinator {
    async fn snapshot(&self, at: &Addresses) -> Snapshot {
        let asked = self.ask("ClusterStatus", at, |mut admin| async move {
            admin.cluster_status(v1::ClusterStatusRequest::default()).await
        });
        match asked.await {
            Ok(answer) => match ClusterSnapshot::read(answer) {
                Ok(snapshot) => Snapshot::Known(Box::new(snapshot)),
                Err(what) => {
                    Snapshot::Unreachable(format!("a coordinator's answer is wrong: {what}"))
                }
            },
            Err(CallError::Refused { failure, .. }) if is_uninitialised(&failure) => {
                Snapshot::Uninitialised
            }
            Err(error) => Snapshot::Unreachable(error.to_string()),
        }
    }

    async fn init(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication_factor: i32,
        min_write_replicas: Option<i32>,
    ) -> Result<bool, CallError> {
        let request = v1::InitRequest {
            cluster_id: id.to_wire(),
            replication_factor: replication_factor.unsigned_abs(),
            min_write_replicas: min_write_replicas.map(i32::unsigned_abs),
        };
        let asked = self.ask("Init", at, |mut admin| {
            let request = request.clone();
            async move { admin.init(request).await }
        });
        Ok(asked.await?.is_new)
    }

    async fn set_replication(
        &self,
        at: &Addresses,
        id: ClusterId,
        replication_factor: i32,
        min_write_replicas: Option<i32>,
    ) -> Result<(), CallError> {
        let request = v1::SetReplicationRequest {
            cluster_id: id.to_wire(),
            replication_factor: replication_factor.unsigned_abs(),
            min_write_replicas: min_write_replicas.map(i32::unsigned_abs),
        };
        let asked = self.ask("SetReplication", at, |mut admin| {
            let request = request.clone();
            async move { admin.set_replication(request).await }
        });
        asked.await.map(drop)
    }

    async fn admit(&self, at: &Addresses, id: ClusterId, node: NodeId) -> Result<(), CallError> {
        let request = v1::AdmitRequest { cluster_id: id.to_wire(), node_id: node.to_wire() };
        let asked = self.ask("Admit", at, |mut admin| {
            let request = request.clone();
            async move { admin.admit(request).await }
        });
        asked.await.map(drop)
    }

    async fn maintenance(
        &self,
        at: &Addresses,
        id: ClusterId,
        node: NodeId,
        ttl: Duration,
    ) -> Result<Maintenance, CallError> {
        let request = v1::MaintenanceRequest {
            cluster_id: id.to_wire(),
            node_id: node.to_wire(),
            ttl_ms: ttl.as_millis() as u64,
            require_safe: !ttl.is_zero(),
        };
        let asked = self.ask("Maintenance", at, |mut admin| {
            let request = request.clone();
            async move { admin.maintenance(request).await }
        });
        let answer = asked.await?;
        Ok(if answer.is_granted {
            Maintenance::Granted
        } else {
            let reason = answer.safety.map(|safety| safety.reason).unwrap_or_default();
            Maintenance::Refused(reason)
        })
    }
}

/// Whether a coordinator says that it waits for `Init`.
fn is_uninitialised(failure: &Failure) -> bool {
    failure.detail == Some(Detail::Uninitialised)
}

impl ClusterSnapshot {
    fn read(answer: v1::ClusterStatusResponse) -> Result<Self, String> {
        let id = ClusterId::from_wire(&answer.cluster_id).ok_or("cluster_id is not 16 bytes")?;
        let nodes = answer.nodes.into_iter().map(Node::read).collect::<Result<_, _>>()?;
        let data = answer.replication.filter(|data| data.is_known).map(|data| Data {
            under_replicated: data.under_replicated,
            missing: data.missing,
            bad_replicas: data.bad_replicas,
            repairing: data.repairing,
        });
        Ok(Self {
            id,
            replication_factor: small(answer.replication_factor),
            min_write_replicas: small(answer.min_write_replicas),
            nodes,
            data,
            version: answer.version,
            lease_holder: answer.worker_lease_holder,
        })
    }

    /// The nodes that are part of the cluster, by the pod that they run in. Where a new node has
    /// taken the place of one that is lost, it is the new one.
    pub fn by_pod(&self) -> BTreeMap<&str, &Node> {
        let is_silent = |node: &Node| matches!(node.state, NodeState::Suspect | NodeState::Lost);
        let mut nodes: Vec<&Node> =
            self.nodes.iter().filter(|node| node.state != NodeState::Removed).collect();
        nodes.sort_by_key(|node| !is_silent(node));
        nodes.into_iter().map(|node| (node.pod(), node)).collect()
    }
}

impl Node {
    fn read(status: v1::NodeStatus) -> Result<Self, String> {
        let location = status.node.ok_or("a node has no location")?;
        let state = wire::node_state("state", location.state).map_err(|e| e.to_string())?;
        let works = || status.disks.iter().filter(|disk| !disk.is_failed);
        let capacity = works().map(|disk| disk.capacity).sum();
        let free: u64 = works().map(|disk| disk.free).sum();
        Ok(Self {
            id: NodeId::from_wire(&location.node_id).ok_or("a node_id is not 16 bytes")?,
            state,
            capacity,
            used: u64::saturating_sub(capacity, free),
            chunks: works().map(|disk| disk.chunks).sum(),
            address: location.address,
            zone: location.zone,
            host: location.host,
            version: status.version,
            maintenance_left: status.maintenance_left_ms.map(Duration::from_millis),
        })
    }

    /// The pod that it runs in: the first label of its host name.
    pub fn pod(&self) -> &str {
        self.address.split(['.', ':']).next().unwrap_or_default()
    }
}

fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

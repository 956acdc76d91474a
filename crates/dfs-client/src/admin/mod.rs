//! Cluster administration: status, settings, nodes.

mod check;
mod forget;
mod gc;
mod moves;
mod nodes;
mod readmission;
mod status;
mod upgrade;
mod workers;

use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::wire::WireId as _;
use dfs_proto::{MESSAGE_LEN_MAX, v1};
use dfs_transport::ClientChannel;
use dfs_types::{ClusterId, DfsPath, Revision, Target};
use tonic::{Response, Status};

use crate::coordinator_call::Persistence;
use crate::{Client, Error};

pub use check::{DamagedChunk, ReplicaCheck};
pub use forget::{NeededChunk, NodeLoss};
pub use gc::{GcHold, GcStatus, UnneededReplica};
pub use moves::MovePlan;
pub use nodes::{Maintenance, MaintenanceRequest, StopSafety};
pub use readmission::Readmission;
pub use status::{
    ClusterStatus, DiskStatus, FailingTarget, NodeStatus, ReconciliationStatus, RefusedNode,
    ReplicationStatus,
};
pub use upgrade::UpgradeStatus;
pub use workers::{WorkerActivity, WorkerChange, WorkerStatus, WorkerUnit, Workers};

/// Administrative calls of a [`Client`]. Cheap to clone.
///
/// Every call is idempotent and tries coordinators until the client's deadline, unless
/// [`Admin::one_round`] was called. A call that changes something names its target cluster; any
/// other cluster refuses it with `WRONG_CLUSTER`.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
    persistence: Persistence,
}

/// Replication settings of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replication {
    /// Replicas of each chunk, 1 to 16.
    pub factor: u32,
    /// Durable replicas required to acknowledge a write, 1 to `factor`. `None` for a majority, or, for
    /// a path, for the number of the cluster, if it has one.
    pub min_write: Option<u32>,
}

impl Replication {
    /// Sets the number of replicas, without a number of durable ones.
    pub fn new(factor: u32) -> Self {
        Self { factor, min_write: None }
    }

    /// Sets the number of durable replicas required to acknowledge a write.
    #[must_use]
    pub fn min_write(self, replicas: u32) -> Self {
        Self { min_write: Some(replicas), ..self }
    }
}

impl Client {
    /// Administrative calls, over the connections of this client.
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone(), persistence: Persistence::UntilDeadline }
    }
}

impl Admin {
    /// Asks each coordinator at most once instead of trying until the deadline, for callers that
    /// retry on their own schedule. A coordinator that waits for [`Admin::init`] ends the round:
    /// see [`Error::is_uninitialised`].
    #[must_use]
    pub fn one_round(self) -> Self {
        Self { persistence: Persistence::OneRound, ..self }
    }

    /// Returns a consistent snapshot of the whole cluster.
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        let context = "status of the cluster";
        let request = v1::ClusterStatusRequest::default();
        let reply = self.call(context, request, |mut admin, request| async move {
            admin.cluster_status(request).await
        });
        ClusterStatus::from_wire(reply.await?).map_err(|error| Error::wire(context, &error))
    }

    /// Creates the cluster in the empty metadata store of coordinators that wait for it. Returns
    /// `true` if this call created it, `false` if it already exists under the same id.
    pub async fn init(&self, cluster: ClusterId, replication: Replication) -> Result<bool, Error> {
        let request = v1::InitRequest {
            cluster_id: cluster.to_wire(),
            replication_factor: replication.factor,
            min_write_replicas: replication.min_write,
        };
        let reply = self.call("create the cluster", request, |mut admin, request| async move {
            admin.init(request).await
        });
        Ok(reply.await?.is_new)
    }

    /// Sets how many replicas files get that have no number of their own. New files get them from the
    /// returned revision on, existing ones in the background.
    pub async fn set_replication(
        &self,
        cluster: ClusterId,
        replication: Replication,
    ) -> Result<Revision, Error> {
        self.send_replication(cluster, None, Some(replication)).await
    }

    /// Sets how many replicas a file gets, or everything below a directory; `None` for the default of
    /// the cluster. New files get them from the returned revision on, existing ones in the background.
    /// Without [`Replication::min_write`], writes need [`ClusterStatus::min_write_for`] durable replicas.
    /// A symlink is followed.
    pub async fn set_replication_of(
        &self,
        cluster: ClusterId,
        path: &DfsPath,
        replication: Option<Replication>,
    ) -> Result<Revision, Error> {
        self.send_replication(cluster, Some(path), replication).await
    }

    async fn send_replication(
        &self,
        cluster: ClusterId,
        path: Option<&DfsPath>,
        replication: Option<Replication>,
    ) -> Result<Revision, Error> {
        let request = v1::SetReplicationRequest {
            cluster_id: cluster.to_wire(),
            replication_factor: replication.map_or(0, |replication| replication.factor),
            min_write_replicas: replication.and_then(|replication| replication.min_write),
            target: path.map(|path| Target::from(path).into()),
        };
        let context = match path {
            Some(path) => format!("set the replication factor of {path}"),
            None => "set the replication factor".to_owned(),
        };
        let reply = self.call(&context, request, |mut admin, request| async move {
            admin.set_replication(request).await
        });
        Ok(Revision(reply.await?.revision))
    }

    /// Sends a request, trying several coordinators if necessary.
    async fn call<Q: Clone, T, F>(
        &self,
        context: &str,
        request: Q,
        send: impl Fn(AdminClient<ClientChannel>, Q) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let call = self.client.call_any(context, self.persistence, |channel| {
            let admin = AdminClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
            send(admin, request.clone())
        });
        self.client.with_request_id(call).await
    }
}

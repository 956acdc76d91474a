//! What the coordinator knows that holds the worker lease, for those that do not.

use std::time::Duration;

use dfs_metadata::engine::lease_renewal_key;
use dfs_proto::v1::admin_client::AdminClient;
use dfs_proto::wire::WireId;
use dfs_proto::{Failure, MESSAGE_LEN_MAX, v1};
use dfs_transport::ClientChannel;
use dfs_types::{CoordinatorId, Revision, Scope};
use tokio::time::timeout;
use tonic::{Response, Status};

use super::admin::BackgroundWork;
use crate::core::Core;
use crate::workers::WORKER_LEASE;

/// How long the holder may take. It waits half a second for its repair itself, and a client asks
/// another coordinator after a second.
const ANSWER_WITHIN: Duration = Duration::from_millis(750);
/// How long it may take for a call that it answers itself, which may be a commit.
const CALL_WITHIN: Duration = Duration::from_secs(5);

/// Asks the holder of the worker lease how the data is and what the workers do, with all that
/// happened to the chunks up to `least`. `None` when there is none, or it does not answer.
pub(super) async fn ask(core: &Core, least: Revision) -> Option<BackgroundWork> {
    let answer = timeout(ANSWER_WITHIN, ask_holder(core, least)).await;
    answer
        .inspect_err(|_| tracing::debug!("the holder of the worker lease does not answer"))
        .ok()?
}

async fn ask_holder(core: &Core, least: Revision) -> Option<BackgroundWork> {
    let (holder, mut admin) = client(core).await?;
    let request = v1::ClusterStatusRequest { min_revision: least.0, order: None };
    let request = core.peer_order(request);
    let answer = match admin.cluster_status(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            tracing::debug!(holder, error = status.message(), "the holder of the lease refuses");
            return None;
        }
    };
    // Another process may have its address by now, and it may have lost the lease.
    let is_ours = answer.cluster_id == core.namespace.identity().cluster.to_wire();
    if !is_ours || answer.worker_lease_holder.is_empty() {
        return None;
    }
    Some(BackgroundWork {
        replication: answer.replication.unwrap_or_default(),
        workers: answer.workers,
        lease_holder: answer.worker_lease_holder,
    })
}

/// Has the holder of the worker lease answer a call. `None` when there is none, or it does not
/// answer in time.
pub(super) async fn call<T>(
    core: &Core,
    send: impl AsyncFnOnce(AdminClient<ClientChannel>) -> Result<Response<T>, Status>,
) -> Option<Result<T, Failure>> {
    let call = async {
        let (_, admin) = client(core).await?;
        Some(send(admin).await)
    };
    let answer = timeout(CALL_WITHIN, call).await.ok()??;
    Some(answer.map(Response::into_inner).map_err(|status| Failure::from_status(&status)))
}

/// The holder of the worker lease, which is another coordinator, and a client of it.
async fn client(core: &Core) -> Option<(String, AdminClient<ClientChannel>)> {
    let snapshot = core.engine.snapshot().await.ok()?;
    let renewal = snapshot.get(&lease_renewal_key(WORKER_LEASE)).await.ok()??;
    let holder: CoordinatorId = std::str::from_utf8(&renewal.value).ok()?.parse().ok()?;
    if holder == core.this.id {
        // It was this one, and is no more.
        return None;
    }
    let coordinators = core.namespace.coordinators(Scope::internal()).await.ok()?;
    let holder = coordinators.into_iter().find(|coordinator| coordinator.id == holder)?.address;
    let channel = core.channels.control(&holder).ok()?;
    let admin = AdminClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    Some((holder, admin))
}

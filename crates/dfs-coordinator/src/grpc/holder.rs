//! Calls to the holder of the worker lease, for what only it knows.

use dfs_metadata::engine::lease::lease_renewal_key;
use std::time::Duration;

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

/// Time for the holder to report. It waits half a second for its own repair, and a client tries
/// another coordinator after a second.
const ANSWER_WITHIN: Duration = Duration::from_millis(750);
/// Time for a call that the holder executes, which may include a commit.
const CALL_WITHIN: Duration = Duration::from_secs(5);

/// Asks the holder of the worker lease for the health of the data and the state of the workers,
/// including all changes of chunks up to `least`. `None` when there is no holder, or it does not
/// respond.
pub(super) async fn ask(core: &Core, least: Revision) -> Option<BackgroundWork> {
    let answer = timeout(ANSWER_WITHIN, ask_holder(core, least)).await;
    answer
        .inspect_err(|_| tracing::debug!("the holder of the worker lease does not respond"))
        .ok()?
}

async fn ask_holder(core: &Core, least: Revision) -> Option<BackgroundWork> {
    let (holder, mut admin) = client(core).await?;
    let request = v1::ClusterStatusRequest { min_revision: least.0, order: None };
    let request = core.peer_order(request);
    let answer = match admin.cluster_status(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            tracing::debug!(
                holder,
                error = status.message(),
                "the holder of the worker lease refused"
            );
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
        reconciliation: answer.reconciliation.unwrap_or_default(),
        lease_holder: answer.worker_lease_holder,
    })
}

/// Forwards a call to the holder of the worker lease. `None` when there is none, or it does not
/// respond in time.
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

/// Returns the holder of the worker lease, if it is another coordinator, and a client of it.
async fn client(core: &Core) -> Option<(String, AdminClient<ClientChannel>)> {
    let snapshot = core.engine.snapshot().await.ok()?;
    let renewal = snapshot.get(&lease_renewal_key(WORKER_LEASE)).await.ok()??;
    let holder: CoordinatorId = std::str::from_utf8(&renewal.value).ok()?.parse().ok()?;
    if holder == core.this.id {
        // It was this one, which has lost it.
        return None;
    }
    let coordinators = core.namespace.coordinators(Scope::internal()).await.ok()?;
    let holder = coordinators.into_iter().find(|coordinator| coordinator.id == holder)?.address;
    let channel = core.channels.control(&holder).ok()?;
    let admin = AdminClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    Some((holder, admin))
}

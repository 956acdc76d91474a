//! Registration: joining the cluster, or rejoining it.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_chunkstore::Registration;
use dfs_proto::v1::membership_client::MembershipClient;
use dfs_proto::wire::{self, WireId as _};
use dfs_proto::{Failure, FieldError, v1};
use dfs_types::{ClusterId, DiskId, ErrorCode, Incarnation, Level, NodeState, RegistrationNumber};
use tonic::Request;

use super::MembershipError;
use crate::node::{Membership, Node, REMOVED};

/// Time limit for a coordinator to reply.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bounds of the heartbeat interval, regardless of what a coordinator asks for.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_mins(1);

/// Registers with one coordinator. On return the registration is durable on all disks, and in use.
pub(super) async fn run(node: &Node, address: &str) -> Result<Membership, MembershipError> {
    let known = node.store.identity().registration;
    let disks = node.disks_in_service();
    let mut request = Request::new(request(node, known));
    request.set_timeout(ANSWER_WITHIN);
    let channel =
        node.channels.control(address).map_err(|e| MembershipError::Refused(e.to_string()))?;
    let answer =
        tokio::time::timeout(ANSWER_WITHIN, MembershipClient::new(channel).register(request))
            .await
            .map_err(|_| Failure::new(ErrorCode::Unavailable, "timed out"))?
            .map_err(|status| refusal(Failure::from_status(&status)))?
            .into_inner();
    let membership = parse(&answer, disks).map_err(|error| {
        MembershipError::Refused(format!("malformed reply from the coordinator: {error}"))
    })?;
    if let Some(known) = known {
        check_same_cluster(&known, &membership)?;
    }
    if membership.state == NodeState::Removed {
        return Err(MembershipError::Refused(REMOVED.to_owned()));
    }
    let level = Level(answer.level);
    if level > node.settings.level {
        return Err(MembershipError::Refused(node.too_old(level)));
    }
    let Membership { cluster, incarnation, registration: number, .. } = membership;
    let stored = Registration { cluster, incarnation, number };
    if answer.are_disks_returning {
        tracing::warn!(node = %node.id, "the cluster has no current records of what the disks hold");
        node.store.rejoin(stored).await?;
    } else {
        node.store.store_registration(stored).await?;
    }
    node.store.raise_level(level).await?;
    tracing::info!(
        node = %node.id, %cluster, registration = %number,
        state = %membership.state, coordinator = address, "registered"
    );
    node.take_membership(membership.clone());
    Ok(membership)
}

fn request(node: &Node, known: Option<Registration>) -> v1::RegisterRequest {
    let settings = &node.settings;
    v1::RegisterRequest {
        join_secret: settings.join_secret.expose().to_owned(),
        cluster_id: known.map(|known| known.cluster.to_wire()).unwrap_or_default(),
        incarnation: known.map_or(0, |known| known.incarnation.0),
        node_id: node.id.to_wire(),
        registration: known.map_or(0, |known| known.number.0),
        address: node.address.clone(),
        zone: settings.zone.clone(),
        host: settings.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        level: settings.level.0,
        disks: super::heartbeat::disks(node),
        node_secret: bytes::Bytes::copy_from_slice(node.store.identity().secret.expose()),
        start: node.store.identity().start,
        instance_id: node.instance,
    }
}

/// Distinguishes a refusal, which is permanent, from a transient error.
fn refusal(failure: Failure) -> MembershipError {
    match failure.code {
        ErrorCode::Unauthenticated => MembershipError::Refused(format!(
            "the coordinator rejects this join secret ({failure}): \
             give this node the secret of the cluster"
        )),
        ErrorCode::WrongCluster
        | ErrorCode::PermissionDenied
        | ErrorCode::InvalidArgument
        | ErrorCode::UnsupportedVersion
        | ErrorCode::Unimplemented => MembershipError::Refused(failure.message),
        _ => MembershipError::Unreachable(failure),
    }
}

fn parse(answer: &v1::RegisterResponse, disks: BTreeSet<DiskId>) -> Result<Membership, FieldError> {
    let interval = Duration::from_millis(answer.heartbeat_interval_ms);
    Ok(Membership {
        cluster: wire::id::<ClusterId>("cluster_id", &answer.cluster_id)?,
        registration: RegistrationNumber(answer.registration),
        incarnation: Incarnation(answer.incarnation),
        key: wire::key("node_key", &answer.node_key)?,
        order_key: wire::key("order_key", &answer.order_key)?,
        heartbeat_interval: interval.clamp(INTERVAL_MIN, INTERVAL_MAX),
        state: wire::node_state("state", answer.state)?,
        disks,
    })
}

/// Checks that the node's disks belong to the cluster: neither an empty cluster in its place nor an
/// old state of it may have this node.
fn check_same_cluster(
    known: &Registration,
    membership: &Membership,
) -> Result<(), MembershipError> {
    let incarnation = membership.incarnation;
    if membership.cluster != known.cluster {
        return Err(MembershipError::Refused(format!(
            "the disks belong to cluster {}, but the coordinator belongs to {}: \
             point this node at a coordinator of its own cluster",
            known.cluster, membership.cluster
        )));
    }
    if incarnation < known.incarnation {
        return Err(MembershipError::Refused(format!(
            "the coordinator's metadata has incarnation {incarnation}, but the disks have seen \
             {}: the coordinator runs on an old state of the cluster; start it on the newest copy of \
             its metadata, and leave the disks as they are",
            known.incarnation
        )));
    }
    if membership.registration <= known.number {
        return Err(MembershipError::Refused(format!(
            "the coordinator issued registration {}, but the disks already have {}: \
             the coordinator runs on an old state of the cluster; start it on the newest copy of its \
             metadata, and leave the disks as they are",
            membership.registration, known.number
        )));
    }
    Ok(())
}

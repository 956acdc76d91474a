//! The call of `Admin` that lets a node join with older copies of its disks.

use dfs_metadata::namespace::NodeDiskState;
use dfs_proto::wire::WireId;
use dfs_proto::{Failure, v1};
use dfs_transport::Caller;
use dfs_types::{NodeId, RegistrationNumber};
use tokio::time::Instant;
use tracing::warn;

use super::admin::wire_disk;
use super::drain::member;
use super::nodes::node_of_call;
use super::removal::refused;
use crate::core::Core;
use crate::failure;
use crate::refused_nodes::Applicant;

/// Returns what asks to join as a node, and lets it join unless this is a dry run.
pub(super) async fn readmit(
    core: &Core,
    (caller, request): (Caller, v1::ReadmitRequest),
) -> Result<v1::ReadmitResponse, Failure> {
    let node = node_of_call(core, &request.cluster_id, &request.node_id)?;
    let stored = member(core, &caller, node).await?;
    core.take_members(&[(node, stored.clone())]);
    let now = Instant::now();
    check_silent(core, node, now)?;
    let applicant = only_applicant(core, node, now)?;
    let last_heard = core.registry().view(node, now).and_then(|view| view.last_heard);
    if !request.is_dry_run {
        let asked = RegistrationNumber(request.registration);
        if applicant.registration != asked {
            let message = format!(
                "the process that asks to join as node {node} has registration {} now, not {asked}",
                applicant.registration
            );
            return Err(refused(message));
        }
        let readmitted = core.namespace.readmit(&caller.scope(), node, asked).await;
        readmitted.map_err(|error| failure::of(&error))?;
        warn!(%node, registration = %asked, "older copies of the disks of a datanode may join");
    }
    let is_absent = |id| applicant.disks.iter().all(|disk| disk.disk != id);
    let needed = stored.disks.iter().filter(|disk| disk.state != NodeDiskState::Clear);
    let absent = needed.map(|disk| disk.id).filter(|id| is_absent(*id));
    Ok(v1::ReadmitResponse {
        absent_disks: absent.map(WireId::to_wire).collect(),
        disks: applicant.disks.iter().map(wire_disk).collect(),
        address: applicant.address,
        host: applicant.host,
        registration: applicant.registration.0,
        registration_in_use: stored.confirmed.0,
        last_heard_ms: last_heard.map(|ago| ago.as_millis() as u64),
    })
}

/// Refuses while a process may use the newer disks.
fn check_silent(core: &Core, node: NodeId, now: Instant) -> Result<(), Failure> {
    let registry = core.registry();
    if registry.is_silent(node, now) {
        return Ok(());
    }
    if registry.is_gathering(now) {
        let message = "this coordinator has just started, and heartbeats may be on their way; try \
                       again in a moment";
        return Err(refused(message.to_owned()));
    }
    let address = registry.view(node, now).map(|view| view.member.address).unwrap_or_default();
    Err(refused(format!(
        "node {node} at {address} uses newer disks and sends heartbeats: if the older copies are to \
         replace it, stop it first"
    )))
}

/// Returns the processes that are refused at present.
pub(super) fn refused_nodes(core: &Core, now: Instant) -> Vec<v1::RefusedNode> {
    let refused = core.refused_nodes.all(now).into_iter();
    let wire =
        |(node, address): (NodeId, String)| v1::RefusedNode { node_id: node.to_wire(), address };
    refused.map(wire).collect()
}

/// Returns the process that asks to join as a node; refuses if there is none, or more than one.
fn only_applicant(core: &Core, node: NodeId, now: Instant) -> Result<Applicant, Failure> {
    let mut applicants = core.refused_nodes.of(node, now);
    match applicants.pop() {
        Some(applicant) if applicants.is_empty() => Ok(applicant),
        None => Err(refused(format!(
            "no process asks to join with older copies of the disks of node {node}: start it, and \
             try again once its log says that it was refused"
        ))),
        Some(last) => {
            let addresses = applicants.iter().chain([&last]).map(|it| it.address.as_str());
            let addresses = addresses.collect::<Vec<_>>().join(" and ");
            Err(refused(format!(
                "processes at {addresses} ask to join as node {node}: stop all but one of them, and \
                 try again a minute later"
            )))
        }
    }
}

//! The gRPC services: each parses its input once, calls the namespace, and converts the result.

mod admin;
mod bootstrap;
mod checks;
mod convert;
mod coordinator;
mod drain;
mod gc;
mod holder;
mod membership;
mod move_plan;
mod nodes;
mod readmission;
mod removal;
mod scrub;
mod upgrade;
mod upload;
mod workers;
mod xattrs;

use std::sync::Arc;

use dfs_metadata::namespace::Repeat;
use dfs_proto::v1::admin_server::AdminServer;
use dfs_proto::v1::coordinator_server::CoordinatorServer;
use dfs_proto::v1::membership_server::MembershipServer;
use dfs_proto::{DESCRIPTOR_SET, FieldError, MESSAGE_LEN_MAX, v1, wire};
use dfs_transport::{Gate, Security, Server};
use dfs_types::Sha256;
use prost::Message;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::Error;
use crate::core::Core;
use crate::relay::Relay;

pub(crate) use bootstrap::{Initialiser, waiting_routes};

/// The gate in front of all services of a coordinator.
pub(crate) const GATE: Gate = Gate::new(Server::Coordinator, Security::Plaintext);

/// Returns all services of a coordinator, with health and reflection.
pub(crate) async fn routes(core: &Arc<Core>) -> Result<(Routes, HealthReporter), Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .build_v1()
        .map_err(Error::Contract)?;
    let coordinator = CoordinatorServer::new(coordinator::Handler(core.clone()))
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    let membership = MembershipServer::new(membership::Handler(core.clone()))
        .max_decoding_message_size(MESSAGE_LEN_MAX);
    let admin = AdminServer::new(admin::Handler(core.clone()))
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    reporter.set_serving::<CoordinatorServer<coordinator::Handler>>().await;
    reporter.set_serving::<MembershipServer<membership::Handler>>().await;
    reporter.set_serving::<AdminServer<admin::Handler>>().await;
    let routes = Routes::new(coordinator)
        .add_service(membership)
        .add_service(admin)
        .add_service(Relay::new(core.clone()))
        .add_service(health)
        .add_service(reflection);
    Ok((routes, reporter))
}

/// Notifies watchers of the health that the services end.
pub(crate) async fn stop_serving(reporter: &HealthReporter) {
    reporter.set_not_serving::<CoordinatorServer<coordinator::Handler>>().await;
    reporter.set_not_serving::<MembershipServer<membership::Handler>>().await;
    reporter.set_not_serving::<AdminServer<admin::Handler>>().await;
}

/// Takes the slot that makes a call repeatable out of the request, so that the rest can be compared
/// with that of a repeat.
fn repeat<M: Message>(
    method: &'static str,
    slot: Option<v1::Slot>,
    body: &M,
) -> Result<Option<Repeat>, FieldError> {
    let Some(slot) = slot else { return Ok(None) };
    let slot = wire::slot("slot", Some(slot))?;
    let mut bytes = method.as_bytes().to_vec();
    bytes.push(0);
    bytes.extend_from_slice(&body.encode_to_vec());
    Ok(Some(Repeat { slot, body: Sha256::of(&bytes) }))
}

//! The relay: datanode calls of clients that cannot connect to the node, forwarded to the node that
//! the call names.
//!
//! ```text
//!  client ── DataNode call, header dfs-node-id ──► coordinator ── the same call ──► that node
//! ```
//!
//! Nothing is inspected, kept or changed: each frame of the connection is forwarded when the other
//! side has room for it, so that a slow side slows down the other, and both ends verify every block
//! as usual. The address of a node comes from the registry, never from the caller. Orders between
//! servers are refused: they stay within the cluster's own network.

mod body;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dfs_proto::v1::data_node_server::SERVICE_NAME;
use dfs_proto::{Failure, Method};
use dfs_transport::{Caller, Lane, NODE_ID_HEADER, Rule, rule};
use dfs_types::{ErrorCode, NodeId, NodeState, with_causes};
use http::{HeaderMap, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

use self::body::{RelayedCall, relayed_request, relayed_response};
use crate::core::Core;
use crate::failure;
use crate::metrics::Refusal;

/// Time for a node to begin its response.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Retry hint when a bound is reached.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The service `DataNode` of a coordinator.
#[derive(Clone)]
pub(super) struct Relay {
    core: Arc<Core>,
    /// One permit per stream of chunk bytes.
    streams: Arc<Semaphore>,
    /// One permit per small call.
    calls: Arc<Semaphore>,
    /// Spreads streams over the connections to a node.
    next: Arc<AtomicU64>,
}

impl Relay {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let bound = core.settings.relay_streams;
        let permits = || Arc::new(Semaphore::new(bound));
        Self { core, streams: permits(), calls: permits(), next: Arc::default() }
    }

    async fn forward(&self, request: Request<Body>) -> Result<Response<Body>, (Refusal, Failure)> {
        let caller = Caller::of(request.extensions());
        let method = caller.map_err(|denied| (Refusal::NotForClients, denied))?.method();
        let Some(has_chunk_bytes) = has_chunk_bytes(method) else {
            let path = method.path();
            let message =
                format!("{path} is a call between servers; a coordinator does not relay it");
            return Err((
                Refusal::NotForClients,
                Failure::new(ErrorCode::PermissionDenied, message),
            ));
        };
        let permit = self.permit(has_chunk_bytes)?;
        let node = named_node(request.headers()).map_err(|wrong| (Refusal::UnknownNode, wrong))?;
        let address = self.address_of(node).await?;
        let unreachable = |what: String| {
            let message = format!("node {node} at {address}: {what}");
            (Refusal::Unreachable, Failure::new(ErrorCode::Unavailable, message))
        };
        let lane = if has_chunk_bytes {
            Lane::Bulk(self.next.fetch_add(1, Ordering::Relaxed))
        } else {
            Lane::Control
        };
        let mut channel = self
            .core
            .channels
            .dial(&address, lane)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let call = RelayedCall::open(self.core.counts.relayed.clone(), permit);
        let (onward, open) = relayed_request(method.path(), request, &call);
        let answer = async {
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(onward).await
        };
        match timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(relayed_response(answer.map(Body::new), call, open)),
            Ok(Err(error)) => {
                self.core.channels.forget(&address, lane);
                Err(unreachable(with_causes(&error)))
            }
            Err(_) => Err(unreachable("no response in time".to_owned())),
        }
    }

    fn permit(&self, has_chunk_bytes: bool) -> Result<OwnedSemaphorePermit, (Refusal, Failure)> {
        let bound = self.core.settings.relay_streams;
        if bound == 0 {
            let message = "this coordinator does not relay streams to datanodes \
                           (relay_streams is 0 in its settings): run the client where it \
                           reaches the datanodes, use `dfs --kube`, or set relay_streams";
            return Err((Refusal::Off, Failure::new(ErrorCode::Unimplemented, message)));
        }
        let permits = if has_chunk_bytes { &self.streams } else { &self.calls };
        permits.clone().try_acquire_owned().map_err(|_| {
            let message = format!(
                "{bound} streams are already relayed, as many as relay_streams allows; \
                 try again, or connect to the datanodes directly"
            );
            (Refusal::Busy, Failure::new(ErrorCode::Busy, message).retry_after(RETRY_AFTER))
        })
    }

    async fn address_of(&self, node: NodeId) -> Result<String, (Refusal, Failure)> {
        let core = &self.core;
        let met = core.ensure_known([node].into_iter()).await;
        met.map_err(|error| (Refusal::UnknownNode, failure::of(&error)))?;
        let (now, registry) = (Instant::now(), core.registry());
        let Some(view) = registry.view(node, now).filter(|view| view.state != NodeState::Removed)
        else {
            let message =
                format!("node {node} is not a member of this cluster; `dfs status` lists it");
            return Err((Refusal::UnknownNode, Failure::new(ErrorCode::NotFound, message)));
        };
        if registry.is_silent(node, now) {
            // Dialling it would make the caller wait for a result that is already known.
            let message = format!("node {node} at {}: it sends no heartbeats", view.member.address);
            return Err((Refusal::Unreachable, Failure::new(ErrorCode::Unavailable, message)));
        }
        Ok(view.member.address)
    }
}

/// Returns whether a relayed method carries chunk bytes; `None` for methods that clients do not
/// call and the relay refuses.
fn has_chunk_bytes(method: Method) -> Option<bool> {
    match rule(method) {
        Rule::Session => Some(true),
        Rule::Capability(_) => Some(method == Method::RetrieveChunk),
        _ => None,
    }
}

fn named_node(headers: &HeaderMap) -> Result<NodeId, Failure> {
    let text = headers.get(NODE_ID_HEADER).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let message = format!(
            "this is a coordinator: it relays calls to the datanode whose id, 32 hexadecimal \
             digits, is in the header {NODE_ID_HEADER}"
        );
        Failure::new(ErrorCode::InvalidArgument, message)
    })
}

impl NamedService for Relay {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<Request<Body>> for Relay {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            Ok(service.forward(request).await.unwrap_or_else(|(refusal, failure)| {
                tracing::debug!(?refusal, %failure, "not relayed");
                service.core.counts.relayed.refused(refusal);
                tonic::Status::from(failure).into_http()
            }))
        })
    }
}

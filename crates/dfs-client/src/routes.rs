//! Routes to datanodes: direct, or relayed by a coordinator.
//!
//! From outside the network of a cluster, one port of a coordinator may be all that is reachable.
//! Calls of a datanode that cannot be connected to are therefore relayed by a coordinator. The
//! relay route is remembered, and direct connections are probed in the background, so that no call
//! waits for a probe. Calls of a dead datanode are relayed too: the coordinator learns of its death
//! before a connection times out. The relay is used only when connecting fails, never because of
//! a node's reply.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dfs_proto::Failure;
use dfs_transport::{ClientChannel, ConnectError, DialError, Lane, call, connect_error};
use dfs_types::{ErrorCode, NodeId};
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::Client;
use crate::coordinator_call::is_of_transport;
use crate::plan::Node;
use crate::stats::count;

/// First pause before a direct connection is tried again; doubles with each subsequent one.
const PROBE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PROBE_MAX: Duration = Duration::from_secs(16);
/// Maximum number of nodes whose relay routes are remembered.
const RELAY_ROUTES_MAX: usize = 1_024;
/// Maximum number of coordinators tried for one call.
const COORDINATORS_TRIED: usize = 3;
/// Time limit for choosing a coordinator, with its name lookup.
const CHOOSE_WITHIN: Duration = Duration::from_secs(2);

/// Known routes to nodes.
#[derive(Debug, Default)]
pub(crate) struct NodeRoutes {
    relay_routes: Mutex<BTreeMap<NodeId, RelayRoute>>,
    has_warned: AtomicBool,
}

/// A node that is reached through coordinators.
#[derive(Debug)]
struct RelayRoute {
    /// The unreachable address; a new one is worth a direct attempt.
    address: String,
    probes: u32,
    probe_at: Instant,
}

/// How calls reach a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Direct,
    Relay,
    /// Through a coordinator, with a probe of a direct connection in the background.
    RelayAndProbe,
}

/// Outcome of a call to be relayed by a coordinator.
enum Passed<T> {
    /// Reply of the node, or of the coordinator on its behalf.
    Answered(Result<T, Failure>),
    /// No coordinator could relay it.
    NoWay(Failure),
}

impl NodeRoutes {
    fn to(&self, node: &Node, now: Instant) -> Route {
        let mut relay_routes = self.lock();
        match relay_routes.get_mut(&node.id) {
            Some(relay_routes) if relay_routes.address == node.address => {
                if now < relay_routes.probe_at {
                    return Route::Relay;
                }
                let pause =
                    PROBE_MIN * (1 << relay_routes.probes.min(PROBE_MAX.as_secs().ilog2() + 1));
                relay_routes.probe_at = now + pause.min(PROBE_MAX);
                relay_routes.probes += 1;
                Route::RelayAndProbe
            }
            _ => Route::Direct,
        }
    }

    /// Records that the node is reachable only through a coordinator.
    fn add(&self, node: &Node, now: Instant) {
        let mut relay_routes = self.lock();
        if relay_routes.get(&node.id).is_some_and(|known| known.address == node.address) {
            return;
        }
        if relay_routes.len() >= RELAY_ROUTES_MAX {
            // Any entry will do: its route is discovered again when its node is called.
            relay_routes.pop_first();
        }
        let address = node.address.clone();
        relay_routes.insert(node.id, RelayRoute { address, probes: 0, probe_at: now + PROBE_MIN });
    }

    /// Removes the relay route of a node.
    fn forget(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    /// Warns once that data is relayed.
    fn warn_once(&self, node: &Node, coordinator: &str) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                node = node.address,
                coordinator,
                "a datanode is not reachable from here: its data is relayed by the \
                 coordinator, which is slower"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, RelayRoute>> {
        self.relay_routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins the errors of both routes to a node. One that the coordinator repeats is said once.
fn on_both_routes(direct: &ConnectError, relayed: &str) -> String {
    let direct = direct.to_string();
    match relayed.split_once(": ") {
        Some((route, error)) if error.contains(&direct) => format!("{direct}, also {route}"),
        _ => format!("{direct}; {relayed}"),
    }
}

impl Client {
    /// Calls a datanode, through a coordinator if it cannot be connected to. `send` is called again
    /// only when nothing of the call was processed before; `within` limits each reply.
    pub(crate) async fn at_node<T, F, R>(
        &self,
        node: &Node,
        lane: Lane,
        within: Duration,
        send: F,
    ) -> Result<T, Failure>
    where
        F: Fn(ClientChannel) -> R,
        R: Future<Output = Result<T, Status>>,
    {
        let inner = &self.inner;
        let route = inner.routes.to(node, Instant::now());
        let mut error = None;
        match route {
            Route::Direct => match self.directly(node, lane, within, &send).await? {
                Ok(answer) => return Ok(answer),
                Err(not_connected) => error = Some(not_connected),
            },
            Route::RelayAndProbe => self.probe(node, lane),
            Route::Relay => {}
        }
        match self.through(node, lane, within, &send).await {
            Passed::Answered(answer) => {
                if route == Route::Direct {
                    inner.routes.add(node, Instant::now());
                }
                answer
            }
            Passed::NoWay(failure) => {
                inner.routes.forget(node.id);
                Err(failure)
            }
        }
        .map_err(|failure| match error {
            Some(error) => Failure { message: on_both_routes(&error, &failure.message), ..failure },
            None => failure,
        })
    }

    /// Calls a datanode directly. The inner error is a connection that could not be established.
    async fn directly<T, F, R>(
        &self,
        node: &Node,
        lane: Lane,
        within: Duration,
        send: &F,
    ) -> Result<Result<T, ConnectError>, Failure>
    where
        F: Fn(ClientChannel) -> R,
        R: Future<Output = Result<T, Status>>,
    {
        let channels = &self.inner.channels;
        let channel = match channels.dial(&node.address, lane).await {
            Ok(channel) => channel,
            Err(DialError::Connect(error)) => return Ok(Err(error)),
            Err(error) => return Err(Failure::new(ErrorCode::InvalidArgument, error.to_string())),
        };
        match timeout(within, call(channel, send)).await {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(status)) => match connect_error(&status) {
                Some(error) => {
                    channels.forget(&error.address, lane);
                    Ok(Err(error.clone()))
                }
                None => Err(Failure::from_status(&status)),
            },
            Err(_) => Err(Failure::new(ErrorCode::Unavailable, "no reply in time")),
        }
    }

    async fn through<T, F, R>(
        &self,
        node: &Node,
        lane: Lane,
        within: Duration,
        send: &F,
    ) -> Passed<T>
    where
        F: Fn(ClientChannel) -> R,
        R: Future<Output = Result<T, Status>>,
    {
        let inner = &self.inner;
        let unavailable = |message| Failure::new(ErrorCode::Unavailable, message);
        let mut failure = unavailable("no coordinator to relay the call".to_owned());
        for _ in 0..COORDINATORS_TRIED {
            let address = match timeout(CHOOSE_WITHIN, inner.coordinators.choose()).await {
                Ok(Ok(chosen)) => chosen.address,
                Ok(Err(error)) => {
                    return Passed::NoWay(unavailable(format!("coordinator {error}")));
                }
                Err(_) => {
                    return Passed::NoWay(unavailable("coordinator not found in time".to_owned()));
                }
            };
            let said = |failure: Failure| {
                let message = format!("through coordinator {address}: {}", failure.message);
                Failure { message, ..failure }
            };
            let channel = match inner.channels.dial_through(&address, lane, node.id).await {
                Ok(channel) => channel,
                Err(error) => {
                    failure = said(unavailable(error.to_string()));
                    if inner.coordinators.failed(&address) {
                        continue;
                    }
                    break;
                }
            };
            count(&inner.counters.relayed);
            let status = match timeout(within, call(channel, send)).await {
                Ok(Ok(answer)) => {
                    inner.routes.warn_once(node, &address);
                    return Passed::Answered(Ok(answer));
                }
                Ok(Err(status)) => status,
                Err(_) => {
                    return Passed::NoWay(said(unavailable("no reply in time".to_owned())));
                }
            };
            let answered = Failure::from_status(&status);
            if is_of_transport(&status) {
                let was_sent = connect_error(&status).is_none();
                inner.channels.forget(&address, lane);
                let has_other = inner.coordinators.failed(&address);
                failure = said(answered);
                if was_sent || !has_other {
                    break;
                }
                continue;
            }
            if answered.code != ErrorCode::Unimplemented {
                return Passed::Answered(Err(said(answered)));
            }
            // Not a reason to give up on the node, which may be back soon.
            return Passed::NoWay(said(unavailable(if answered.message.is_empty() {
                "its version does not relay streams".to_owned()
            } else {
                answered.message
            })));
        }
        Passed::NoWay(failure)
    }

    /// Probes a direct connection in the background.
    fn probe(&self, node: &Node, lane: Lane) {
        let (client, node) = (self.clone(), node.clone());
        tokio::spawn(async move {
            let channels = &client.inner.channels;
            if channels.dial(&node.address, lane).await.is_ok() {
                tracing::debug!(node = %node.id, "node is directly reachable again");
                client.inner.routes.forget(node.id);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn error_of_both_routes_is_said_once() {
        let refused = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let direct = ConnectError { address: "a:7080".to_owned(), reason: refused };
        let same = format!("through coordinator c:7070: node 1 at a:7080: {direct}");
        let both = format!("{direct}, also through coordinator c:7070");
        assert_eq!(on_both_routes(&direct, &same), both);
        let other = "through coordinator c:7070: node 1 at a:7080: it sends no heartbeats";
        assert_eq!(on_both_routes(&direct, other), format!("{direct}; {other}"));
    }
}

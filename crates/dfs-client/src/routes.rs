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
use dfs_transport::{ClientChannel, ConnectError, DialError, Lane, connect_error};
use dfs_types::{ErrorCode, NodeId};
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::Client;
use crate::call::is_of_transport;
use crate::plan::Node;
use crate::stats::count;

/// The first pause before a direct connection is tried again; each further one is twice as long.
const PROBE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PROBE_MAX: Duration = Duration::from_secs(16);
/// Maximum number of nodes whose relay routes are remembered.
const RELAY_ROUTES_MAX: usize = 1_024;
/// Coordinators that are tried for one call.
const COORDINATORS_TRIED: usize = 3;
/// How long the names of coordinators may take to look up.
const CHOOSE_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the routes to nodes.
#[derive(Debug, Default)]
pub(crate) struct NodeRoutes {
    relay_routes: Mutex<BTreeMap<NodeId, RelayRoute>>,
    has_warned: AtomicBool,
}

/// A node that is reached through coordinators.
#[derive(Debug)]
struct RelayRoute {
    /// Where it cannot be reached; another address is worth a try.
    address: String,
    probes: u32,
    probe_at: Instant,
}

/// What to do about a node that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Direct,
    Relay,
    /// Through a coordinator, and a direct connection is to be tried beside that.
    RelayAndProbe,
}

/// What became of a call that a coordinator was to pass on.
enum Passed<T> {
    /// The node, or the coordinator on its behalf, gave an answer.
    Answered(Result<T, Failure>),
    /// No coordinator did.
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

    /// The node cannot be connected to, but asked for at a coordinator.
    fn add(&self, node: &Node, now: Instant) {
        let mut relay_routes = self.lock();
        if relay_routes.get(&node.id).is_some_and(|known| known.address == node.address) {
            return;
        }
        if relay_routes.len() >= RELAY_ROUTES_MAX {
            // Any: it is found out again when its node is called.
            relay_routes.pop_first();
        }
        let address = node.address.clone();
        relay_routes.insert(node.id, RelayRoute { address, probes: 0, probe_at: now + PROBE_MIN });
    }

    /// The node can be connected to, or there is no coordinator to ask for it.
    fn forget(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    /// Warns once that data is relayed.
    fn tell(&self, node: &Node, coordinator: &str) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                node = node.address,
                coordinator,
                "a datanode cannot be connected to from here: its data goes through the \
                 coordinator, which is slower"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, RelayRoute>> {
        self.relay_routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Calls a datanode, through a coordinator if it cannot be connected to. `send` is called a
    /// second time only when nothing was sent the first time; each answer may take so long.
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
            Some(error) => {
                let message = format!("{error}; {}", failure.message);
                Failure { message, ..failure }
            }
            None => failure,
        })
    }

    /// The inner error is one of a connection that could not be made.
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
        match timeout(within, send(channel)).await {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(status)) => match connect_error(&status) {
                Some(error) => {
                    channels.forget(&error.address, lane);
                    Ok(Err(error.clone()))
                }
                None => Err(Failure::from_status(&status)),
            },
            Err(_) => Err(Failure::new(ErrorCode::Unavailable, "no answer in time")),
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
        let mut failure = unavailable("there is no coordinator to pass it on".to_owned());
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
            let status = match timeout(within, send(channel)).await {
                Ok(Ok(answer)) => {
                    inner.routes.tell(node, &address);
                    return Passed::Answered(Ok(answer));
                }
                Ok(Err(status)) => status,
                Err(_) => {
                    return Passed::NoWay(said(unavailable("no answer in time".to_owned())));
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
            // That is no reason to give up on the node, which may be back soon.
            return Passed::NoWay(said(unavailable(if answered.message.is_empty() {
                "its version is too old to pass streams on".to_owned()
            } else {
                answered.message
            })));
        }
        Passed::NoWay(failure)
    }

    /// Tries a direct connection beside the calls.
    fn probe(&self, node: &Node, lane: Lane) {
        let (client, node) = (self.clone(), node.clone());
        tokio::spawn(async move {
            let channels = &client.inner.channels;
            if channels.dial(&node.address, lane).await.is_ok() {
                tracing::debug!(node = %node.id, "can be connected to again");
                client.inner.routes.forget(node.id);
            }
        });
    }
}

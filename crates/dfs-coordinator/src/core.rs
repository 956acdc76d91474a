//! State shared by the services and workers of a coordinator.

use std::sync::{Arc, Mutex, MutexGuard};

use dfs_metadata::engine::Engine;
use dfs_metadata::namespace::{ClusterIdentity, Coordinator, Namespace, Node, Nodes};
use dfs_metadata::placement::NodeSelector;
use dfs_proto::wire::WireId;
use dfs_proto::{Failure, Issued, OrderParties, Ordered, open_order, seal_order, v1};
use dfs_runtime::Shutdown;
use dfs_transport::Channels;
use dfs_types::{Clock, ErrorCode, NodeId, NodeState, Random, RegistrationNumber, Scope};
use tokio::time::Instant;

use crate::Settings;
use crate::background::Background;
use crate::metrics::Counts;
use crate::node_liveness::{Member, Registry, View};
use crate::recheck_queue::Rechecks;
use crate::refused_nodes::RefusedNodes;
use crate::removals::Removals;
use crate::safety_scans::SafetyScans;

/// The id that an order names when it is for a coordinator rather than a node.
const COORDINATOR: NodeId = NodeId(0);

/// Shared state. One per coordinator, behind an [`Arc`].
pub(crate) struct Core {
    pub(crate) settings: Settings,
    /// This coordinator's entry in the list of coordinators.
    pub(crate) this: Coordinator,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) namespace: Namespace,
    pub(crate) channels: Channels,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) selector: Box<dyn NodeSelector>,
    pub(crate) counts: Arc<Counts>,
    /// Identifies this process in its orders.
    pub(crate) instance: u64,
    pub(crate) background: Background,
    pub(crate) rechecks: Rechecks,
    /// Triggered when the coordinator begins to stop; ends what would otherwise run forever.
    pub(crate) stopping: Shutdown,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) safety_scans: SafetyScans,
    pub(crate) removals: Removals,
    pub(crate) refused_nodes: RefusedNodes,
}

impl Core {
    /// Seals an order to a node of this registration.
    pub(crate) fn order<R: Ordered>(
        &self,
        node: NodeId,
        registration: RegistrationNumber,
        request: R,
    ) -> R {
        let key = self.namespace.keys().order(node, registration);
        seal_order(request, &key, self.parties(node), self.issued())
    }

    /// Seals a request to another coordinator.
    pub(crate) fn peer_order<R: Ordered>(&self, request: R) -> R {
        let key = self.namespace.keys().peer();
        seal_order(request, &key, self.parties(COORDINATOR), self.issued())
    }

    /// Returns whether another coordinator sent a request; its seal must then be valid and recent.
    pub(crate) fn is_from_peer<R: Ordered>(&self, request: &mut R) -> Result<bool, Failure> {
        if request.order().is_none() {
            return Ok(false);
        }
        let key = self.namespace.keys().peer();
        let refused = |what: String| Failure::new(ErrorCode::Unauthenticated, what);
        let issued = open_order(request, &key, self.parties(COORDINATOR));
        if issued.map_err(|error| refused(error.to_string()))?.is_current(self.clock.now()) {
            return Ok(true);
        }
        Err(refused("the order is too old, or the clocks of the coordinators differ".to_owned()))
    }

    fn parties(&self, node: NodeId) -> OrderParties {
        let ClusterIdentity { cluster, incarnation } = self.namespace.identity();
        OrderParties { cluster, incarnation, node }
    }

    fn issued(&self) -> Issued {
        Issued { coordinator: self.instance, at: self.clock.now() }
    }

    /// Locks the registry of nodes. Must not be held across an await.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        crate::lock(&self.registry)
    }

    /// Reads the stored state of all nodes into the registry.
    pub(crate) async fn refresh_members(&self) -> Result<(), dfs_metadata::Error> {
        self.take_nodes(&self.namespace.nodes(Scope::internal()).await?);
        Ok(())
    }

    /// Puts the given state of all nodes into the registry. A node whose record has become
    /// unreadable keeps its last state.
    pub(crate) fn take_nodes(&self, all: &Nodes) {
        self.take_members(&all.nodes);
        self.registry().set_unreadable(!all.unreadable.is_empty());
        self.background.set_unreadable_nodes(&all.unreadable);
    }

    /// Puts the given state of all nodes into the registry.
    pub(crate) fn take_members(&self, nodes: &[(NodeId, Node)]) {
        let now = Instant::now();
        let mut registry = self.registry();
        for (node, stored) in nodes {
            if let Some(member) = self.member(stored, now) {
                registry.set_member(*node, member, now);
            }
        }
    }

    /// Returns the registry's view of a stored node; `None` for one that never used its
    /// registration.
    pub(crate) fn member(&self, node: &Node, now: Instant) -> Option<Member> {
        let left = node.maintenance_left(self.clock.now());
        (node.confirmed != RegistrationNumber(0)).then(|| Member {
            address: node.address.clone(),
            zone: node.zone.clone(),
            host: node.host.clone(),
            version: node.version.clone(),
            admin_state: node.state,
            maintenance_until: left.map(|left| now + left),
            is_leaving: node.is_leaving,
            is_given_up: node.is_given_up,
            registration: node.confirmed,
            disks: node.disks.clone(),
        })
    }

    /// Makes sure that nodes with replicas are known here: one may have just joined through another
    /// coordinator, and its replicas are not missing.
    pub(crate) async fn ensure_known(
        &self,
        mut nodes: impl Iterator<Item = NodeId>,
    ) -> Result<(), dfs_metadata::Error> {
        let now = Instant::now();
        let is_unknown = nodes.any(|node| self.registry().state(node, now).is_none());
        if is_unknown { self.refresh_members().await } else { Ok(()) }
    }
}

/// Converts a node to its wire form.
pub(crate) fn location(view: &View) -> v1::NodeLocation {
    v1::NodeLocation {
        node_id: view.node.to_wire(),
        address: view.member.address.clone(),
        zone: view.member.zone.clone(),
        host: view.member.host.clone(),
        state: wire_state(view.state),
    }
}

/// Returns the wire form of a node that is not known here.
pub(crate) fn unknown_location(node: NodeId) -> v1::NodeLocation {
    v1::NodeLocation { node_id: node.to_wire(), ..v1::NodeLocation::default() }
}

pub(crate) fn wire_state(state: NodeState) -> i32 {
    v1::NodeState::from(state).into()
}

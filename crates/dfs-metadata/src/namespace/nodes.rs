//! The datanodes of the cluster, as far as they are stored.

use bytes::Bytes;
use dfs_types::{
    Access, DiskId, Level, NodeId, NodeSecret, NodeState, RegistrationNumber, Scope, SealKey,
};

use super::transaction::{Attempt, Transaction};
use super::{ClusterIdentity, Namespace, Node, TRIES};
use crate::{Error, keys};

/// A node that wants to join, or comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// What its disks say, or it has just made up.
    pub node: NodeId,
    /// What its disks say of the cluster; `None` on a new node.
    pub cluster: Option<ClusterIdentity>,
    /// What its disks say; 0 on a new node.
    pub registration: RegistrationNumber,
    /// `host:port` under which others reach it.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Name of the machine; may be empty.
    pub host: String,
    /// Version of its program.
    pub version: String,
    /// The newest write level that its program reads.
    pub level: Level,
    /// Its disks, each once.
    pub disks: Vec<DiskId>,
    /// What its disks say of its secret.
    pub secret: NodeSecret,
}

/// A registration that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// To be written on the disks, durably, before the first heartbeat.
    pub number: RegistrationNumber,
    /// Seals the receipts of this registration, and proves the node in its heartbeats.
    pub key: SealKey,
    /// Seals orders to this registration.
    pub order_key: SealKey,
    /// What the node is to the cluster.
    pub state: NodeState,
    /// The level that the cluster writes.
    pub level: Level,
}

impl Namespace {
    /// Hands out the next registration of a node, which counts from the first heartbeat that uses
    /// it ([`Self::confirm_registration`]). A new node becomes Active with `admit`, else Joining.
    ///
    /// Refuses removed nodes, disks of another cluster, old images, second replicas of disks, programs
    /// that do not read the level that the cluster needs, and whoever does not know the secret that the
    /// node first registered with.
    /// The join secret is the caller's to check.
    pub async fn register(
        &self,
        scope: &Scope,
        request: &Registration,
        admit: bool,
    ) -> Result<Registered, Error> {
        scope.require(Access::Admin)?;
        self.check_comes_from_here(request)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let key = keys::node(request.node);
            let known = tx.get::<Node>(&key).await?;
            let least = tx.format().format.least;
            if request.level < least {
                let (node, level) = (request.node, request.level);
                return Err(Error::NodeTooOld { node, level, needed: least });
            }
            let disks = known.as_ref().map(|known| known.disks.clone()).unwrap_or_default();
            let node = registered(request, known, admit)?;
            let node = Node { disks: tx.number_disks(disks, &request.disks).await?, ..node };
            tx.put(key, &node);
            let level = tx.format().format.written;
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(Registered {
                    level,
                    number: node.pending,
                    key: self.inner.keys.receipt(request.node, node.pending),
                    order_key: self.inner.keys.order(request.node, node.pending),
                    state: node.state,
                });
            }
        }
        Err(Error::Conflict { what: "the registration of a node", tries: TRIES })
    }

    /// Takes a registration into use; a heartbeat came with it. Harmless when it is in use
    /// already. [`Error::NotRegistered`] when the node must register anew.
    pub async fn confirm_registration(
        &self,
        scope: &Scope,
        node: NodeId,
        number: RegistrationNumber,
    ) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let key = keys::node(node);
            let not_registered = Error::NotRegistered { node, found: number.0 };
            let mut known = tx.get::<Node>(&key).await?.ok_or_else(|| not_registered.clone())?;
            if known.state == NodeState::Removed {
                return Err(Error::NodeRemoved(node));
            }
            let is_in_use = number == known.confirmed && number != RegistrationNumber(0);
            if is_in_use && !known.is_leaving {
                return Ok(known);
            }
            if !is_in_use && (number != known.pending || number <= known.confirmed) {
                return Err(not_registered);
            }
            known.confirmed = number;
            // It is here: whoever wanted to take it out looks again, or has given up.
            known.is_leaving = false;
            tx.put(key, &known);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(known);
            }
        }
        Err(Error::Conflict { what: "the registration of a node", tries: TRIES })
    }

    /// One node.
    pub async fn node(&self, scope: &Scope, node: NodeId) -> Result<Option<Node>, Error> {
        scope.require(Access::Read)?;
        self.begin().await?.peek(&keys::node(node)).await
    }

    /// All nodes, removed ones included, in id order.
    pub async fn nodes(&self, scope: &Scope) -> Result<Vec<(NodeId, Node)>, Error> {
        scope.require(Access::Read)?;
        all(&self.begin().await?).await
    }

    /// The disks of a node remember their cluster.
    fn check_comes_from_here(&self, request: &Registration) -> Result<(), Error> {
        let Some(theirs) = request.cluster else { return Ok(()) };
        let ours = self.inner.identity;
        if theirs.cluster != ours.cluster {
            return Err(Error::WrongCluster { expected: theirs.cluster, found: ours.cluster });
        }
        if ours.incarnation < theirs.incarnation {
            let (expected, found) = (theirs.incarnation, ours.incarnation);
            return Err(Error::OlderIncarnation { expected, found });
        }
        Ok(())
    }
}

/// The record of a node with its next registration, and without its disks.
///
/// A number is taken into use only after it is durable on all disks in service, so disks with a
/// number below the one in use are an old image, or the second of two equal ones: of those, only
/// the one that registers last and then sends a heartbeat goes on. Any number from there on is
/// legitimate: the reply to a later request may be lost, or a full disk may end the node between
/// two disks. The new number is above all that were ever handed out or written.
fn registered(request: &Registration, known: Option<Node>, admit: bool) -> Result<Node, Error> {
    let none = RegistrationNumber(0);
    let (id, found) = (request.node, request.registration);
    let secret = request.secret.digest();
    let (confirmed, last, state, maintenance_until) = match known {
        None if found != none => return Err(Error::UnknownNode(id)),
        None => (none, none, NodeState::Joining, None),
        Some(known) if known.state == NodeState::Removed => return Err(Error::NodeRemoved(id)),
        Some(known) if known.secret != secret => return Err(Error::WrongNodeSecret(id)),
        Some(known) if found >= known.confirmed => {
            let last = known.pending.max(known.confirmed).max(found);
            (known.confirmed, last, known.state, known.maintenance_until)
        }
        Some(known) => {
            let expected = known.confirmed.0;
            return Err(Error::OldImage { node: id, found: found.0, expected });
        }
    };
    let is_admitted = admit && state == NodeState::Joining;
    Ok(Node {
        address: request.address.clone(),
        zone: request.zone.clone(),
        host: request.host.clone(),
        version: request.version.clone(),
        level: request.level,
        disks: Vec::new(),
        secret,
        confirmed,
        pending: last.next(),
        state: if is_admitted { NodeState::Active } else { state },
        maintenance_until,
        is_leaving: false,
    })
}

/// Nodes read at a time.
const NODES_STEP: usize = 1_000;

pub(super) async fn all(tx: &Transaction) -> Result<Vec<(NodeId, Node)>, Error> {
    let mut nodes = Vec::new();
    let mut after = Bytes::new();
    loop {
        let page = tx.range::<Node>(keys::NODES, &after, NODES_STEP).await?;
        let is_last = page.len() < NODES_STEP;
        for (key, node) in page {
            let damaged = || Error::Damaged { key: keys::show(&key), what: "a key of no node" };
            nodes.push((keys::node_id(&key).ok_or_else(damaged)?, node));
            after = key;
        }
        if is_last {
            return Ok(nodes);
        }
    }
}

//! The stored state of datanodes.

use bytes::Bytes;
use dfs_types::{
    Access, DiskId, Level, NodeId, NodeSecret, NodeState, RegistrationNumber, Revision, Scope,
    SealKey,
};

use super::transaction::{Attempt, Transaction};
use super::{ClusterIdentity, Namespace, Node, TRIES, Unreadable};
use crate::{Error, keys};

/// A request of a node to join or rejoin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Id on its disks, or a new one.
    pub node: NodeId,
    /// Cluster on its disks; `None` on a new node, whose registration is 0.
    pub cluster: Option<ClusterIdentity>,
    /// Registration on its disks; 0 on a new node.
    pub registration: RegistrationNumber,
    /// High part of the stamps and verdict numbers that it draws.
    pub start: u64,
    /// Address for others, `host:port`.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Name of the machine; may be empty.
    pub host: String,
    /// Version of its release.
    pub version: String,
    /// The newest write level that its release reads.
    pub level: Level,
    /// Disks, each once.
    pub disks: Vec<DiskId>,
    /// Secret on its disks.
    pub secret: NodeSecret,
}

/// A registration issued to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Number to be durable on its disks before the first heartbeat.
    pub number: RegistrationNumber,
    /// Seals the receipts of this registration, and proves the node in its heartbeats.
    pub key: SealKey,
    /// Seals orders to this registration.
    pub order_key: SealKey,
    /// State of the node.
    pub state: NodeState,
    /// The level that the cluster writes.
    pub level: Level,
    /// Set if no record says what the disks hold: all of them are returning with this registration.
    pub are_disks_returning: bool,
}

/// Version of a node's record; any change gives another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeVersion(pub(super) Revision);

impl Namespace {
    /// Issues the next registration of a node, which counts from the first heartbeat that uses it
    /// ([`Self::confirm_registration`]). A new node becomes Active with `admit`, otherwise Joining.
    ///
    /// Refuses what [`Self::check_registration`] refuses. Checking the join secret is up to the caller.
    ///
    /// A node of the cluster that the metadata does not know was added in a commit that was lost. It
    /// joins, and nothing is deleted until that is acknowledged. The same holds for a known node whose
    /// disks have a registration that was never issued.
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
            let evidence = lost_commits(request, known.as_ref());
            let node = registered(request, known, admit, evidence.as_deref())?;
            if let Some(evidence) = evidence {
                tracing::error!(evidence, "commits of the metadata were lost: nothing is deleted");
                tx.hold_deletion(evidence).await?;
            }
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
                    // The newest disks of a node whose older ones were readmitted are current.
                    are_disks_returning: node.rejoins_with.is_some()
                        && request.registration != node.confirmed,
                });
            }
        }
        Err(Error::Conflict { what: "the registration of a node", tries: TRIES })
    }

    /// Checks what [`Self::register`] would refuse, and changes nothing: removed nodes, disks of another
    /// cluster, old images unless they were readmitted, cloned disks, releases that do not read the
    /// level the cluster needs, and nodes without the secret of their first registration. Returns
    /// whether the disks have the registration in use.
    pub async fn check_registration(
        &self,
        scope: &Scope,
        request: &Registration,
    ) -> Result<bool, Error> {
        scope.require(Access::Admin)?;
        self.check_comes_from_here(request)?;
        let known = self.begin().await?.peek::<Node>(&keys::node(request.node)).await?;
        let none = RegistrationNumber(0);
        let in_use = known.as_ref().map_or(none, |known| known.confirmed);
        registered(request, known, false, None)?;
        Ok(in_use != none && request.registration == in_use)
    }

    /// Lets a node join with old images of its disks, which have registration `found`. The disks are
    /// returning then. The permission ends when the node uses a registration, be it with these disks
    /// or with the ones that have the newer registration. Returns the node.
    ///
    /// Making sure that no process uses the newer disks is up to the caller.
    pub async fn readmit(
        &self,
        scope: &Scope,
        node: NodeId,
        found: RegistrationNumber,
    ) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let mut known = tx.member(node).await?;
            if found >= known.confirmed {
                let in_use = known.confirmed;
                let what = format!(
                    "registration {found} of node {node} is not older than the one in use, \
                     {in_use}: the node needs no permission to join"
                );
                return Err(Error::Invalid { what });
            }
            if known.rejoins_with == Some(found) {
                return Ok(known);
            }
            known.rejoins_with = Some(found);
            tx.put(keys::node(node), &known);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(known);
            }
        }
        Err(Error::Conflict { what: "the registration of a node", tries: TRIES })
    }

    /// Puts a registration in use, at its first heartbeat. Idempotent. [`Error::NotRegistered`]
    /// when the node must register again.
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
            let is_expected =
                !known.is_leaving && !known.is_given_up && known.rejoins_with.is_none();
            if is_in_use && is_expected {
                return Ok(known);
            }
            if !is_in_use && (number != known.pending || number <= known.confirmed) {
                return Err(not_registered);
            }
            known.confirmed = number;
            // The node is back: a pending removal must scan again.
            known.is_leaving = false;
            known.is_given_up = false;
            // What was said under older registrations is about disks that did not join.
            if known.rejoins_with.take().is_some() {
                known.counts_from = number;
            }
            tx.put(key, &known);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(known);
            }
        }
        Err(Error::Conflict { what: "the registration of a node", tries: TRIES })
    }

    /// Returns a node.
    pub async fn node(&self, scope: &Scope, node: NodeId) -> Result<Option<Node>, Error> {
        scope.require(Access::Read)?;
        self.begin().await?.peek(&keys::node(node)).await
    }

    /// Returns a node and the version of its record.
    pub async fn node_versioned(
        &self,
        scope: &Scope,
        node: NodeId,
    ) -> Result<Option<(Node, NodeVersion)>, Error> {
        scope.require(Access::Read)?;
        let found = self.begin().await?.peek_versioned(&keys::node(node)).await?;
        Ok(found.map(|(known, version)| (known, NodeVersion(version))))
    }

    /// Returns all nodes.
    pub async fn nodes(&self, scope: &Scope) -> Result<Nodes, Error> {
        scope.require(Access::Read)?;
        all(&self.begin().await?).await
    }

    /// Refuses disks of another cluster or a newer incarnation.
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

/// Returns why the disks of a node prove that commits were lost, if they do: they have a
/// registration that the metadata never issued. Files that were written since may be lost in the
/// same way.
fn lost_commits(request: &Registration, known: Option<&Node>) -> Option<String> {
    let (node, found) = (request.node, request.registration);
    let Some(known) = known else {
        return (found > RegistrationNumber(0))
            .then(|| format!("datanode {node} has registered before, but is not in the metadata"));
    };
    let issued = known.pending.max(known.confirmed);
    (found > issued)
        .then(|| format!("datanode {node} has registration {found}, but only {issued} was issued"))
}

/// Returns the record of a node with its next registration, without its disks.
///
/// A number is used only once it is durable on all disks in service, so disks with a number below
/// the one in use are an old image, or one of two clones: of those, only the one that registers
/// last and then sends a heartbeat continues. Any greater number is accepted: the reply to a later
/// request may have been lost, a full disk may have stopped the node between two disks, or commits
/// were lost. The new number is above all that were ever issued or written, and above the high part
/// of the stamps and verdict numbers that the node draws, which it replaces.
///
/// A node that rejoins may have deleted, or written, what records do not say, so its disks are
/// returning. That they are is durable on them before the first heartbeat, which ends it here.
fn registered(
    request: &Registration,
    known: Option<Node>,
    admit: bool,
    lost_commits: Option<&str>,
) -> Result<Node, Error> {
    let none = RegistrationNumber(0);
    let (id, found) = (request.node, request.registration);
    let secret = request.secret.digest();
    let counts_from = known.as_ref().map_or(none, |known| known.counts_from);
    let rejoins = lost_commits.is_some().then_some(found);
    let (confirmed, last, state, maintenance_until, rejoins_with) = match known {
        None => (none, found, NodeState::Joining, None, rejoins),
        Some(known) if known.state == NodeState::Removed => return Err(Error::NodeRemoved(id)),
        // Nobody knows the secret of a node that was lost with the metadata: its first heartbeat
        // decides.
        Some(known)
            if known.secret != secret
                && (known.confirmed != none || known.rejoins_with.is_none()) =>
        {
            return Err(Error::WrongNodeSecret(id));
        }
        Some(known) if found >= known.confirmed || known.rejoins_with == Some(found) => {
            let last = known.pending.max(known.confirmed).max(found);
            let rejoins = rejoins.or(known.rejoins_with);
            (known.confirmed, last, known.state, known.maintenance_until, rejoins)
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
        pending: last.max(RegistrationNumber(request.start)).next(),
        state: if is_admitted { NodeState::Active } else { state },
        maintenance_until,
        is_leaving: false,
        is_given_up: false,
        rejoins_with,
        counts_from,
    })
}

/// Nodes read at a time.
const NODES_STEP: usize = 1_000;

/// The stored nodes at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Nodes with readable records, including removed ones, in id order.
    pub nodes: Vec<(NodeId, Node)>,
    /// Unreadable records; the disks of their nodes are unknown.
    pub unreadable: Vec<Unreadable>,
}

pub(super) async fn all(tx: &Transaction) -> Result<Nodes, Error> {
    let mut all = Nodes::default();
    let mut after = Bytes::new();
    loop {
        let page = tx.try_range::<Node>(keys::NODES, &after, NODES_STEP).await?;
        let is_last = page.len() < NODES_STEP;
        for (key, node) in page {
            let damaged =
                || Error::Damaged { key: keys::show(&key), what: "not the key of a node" };
            match keys::node_id(&key).ok_or_else(damaged).and_then(|id| Ok((id, node?))) {
                Ok(node) => all.nodes.push(node),
                Err(error) => all.unreadable.push(Unreadable::new(&key, &error)),
            }
            after = key;
        }
        if is_last {
            return Ok(all);
        }
    }
}

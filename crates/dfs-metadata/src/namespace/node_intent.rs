//! Desired states of nodes.

use std::time::Duration;

use dfs_types::{Access, DiskId, NodeId, NodeState, Scope};

use super::holdings::Holdings;
use super::safe_to_stop::NodeIntentVersion;
use super::transaction::{Attempt, Transaction};
use super::{Namespace, Node, NodeDiskState, NodeVersion, TRIES};
use crate::engine::Condition;
use crate::records::setting::Mark;
use crate::{Error, keys};

/// Condition on which maintenance is announced.
#[derive(Debug, Clone, Copy)]
pub enum Grant {
    /// Unconditional.
    Always,
    /// The node is already in maintenance.
    Renewal,
    /// No node's desired state has changed since this version was read.
    Unchanged(NodeIntentVersion),
}

/// What turned out to hold nothing that is needed.
#[derive(Debug, Clone, Copy)]
pub enum Emptied<'a> {
    /// A draining node: it becomes Drained.
    Node,
    /// These disks of the node: they become clear.
    Disks(&'a [DiskId]),
}

impl Namespace {
    /// Makes a Joining node Active; leaves other states unchanged. Returns the node.
    pub async fn admit(&self, scope: &Scope, node: NodeId) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        self.change_node(node, |known| {
            if known.state == NodeState::Joining {
                known.state = NodeState::Active;
            }
        })
        .await
    }

    /// Sets the desired state of a node; not Suspect, Lost or Maintenance, which are not desired
    /// states.
    pub async fn set_node_state(
        &self,
        scope: &Scope,
        node: NodeId,
        state: NodeState,
    ) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        if !Node::can_be(state) {
            return Err(Error::Invalid { what: format!("a node cannot be made {state}") });
        }
        self.change_node(node, |known| known.state = state).await.map(|_| ())
    }

    /// Begins to drain a node: an Active one becomes Draining. Idempotent; a Joining node, which
    /// holds nothing, is refused. Returns the node.
    pub async fn drain(&self, scope: &Scope, node: NodeId) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        let drained = self.change_node(node, |known| {
            if known.state == NodeState::Active {
                known.state = NodeState::Draining;
            }
        });
        let drained = drained.await?;
        if drained.state == NodeState::Joining {
            let what = format!("node {node} has not joined and holds nothing: deregister it");
            return Err(Error::Invalid { what });
        }
        Ok(drained)
    }

    /// Takes a drain back: a Draining or Drained node becomes Active. Idempotent. Returns the node.
    pub async fn undrain(&self, scope: &Scope, node: NodeId) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        self.change_node(node, |known| {
            if matches!(known.state, NodeState::Draining | NodeState::Drained) {
                known.state = NodeState::Active;
            }
        })
        .await
    }

    /// Starts or stops to retire a disk of a node. A disk that was emptied may be used again once
    /// it is no longer retiring. Idempotent. Returns the node.
    pub async fn set_retiring(
        &self,
        scope: &Scope,
        node: NodeId,
        disk: DiskId,
        is_retiring: bool,
    ) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        let changed = self.change_node(node, |known| {
            let Some(disk) = known.disk_mut(disk) else { return };
            if disk.is_retiring && !is_retiring && disk.state == NodeDiskState::Clear {
                disk.state = NodeDiskState::Present;
            }
            disk.is_retiring = is_retiring;
        });
        let changed = changed.await?;
        if changed.disks.iter().all(|known| known.id != disk) {
            return Err(Error::UnknownDisk { node, disk });
        }
        Ok(changed)
    }

    /// Records what was found about the emptiness of a node or its disks, on the condition that its
    /// record is still at `version` and `fence` holds. Returns the changed node, or `None` when
    /// that does not hold: check again.
    pub async fn set_emptied(
        &self,
        scope: &Scope,
        node: NodeId,
        version: NodeVersion,
        emptied: Emptied<'_>,
        fence: Option<&Condition>,
    ) -> Result<Option<Node>, Error> {
        scope.require(Access::Admin)?;
        let mut tx = self.begin_fenced(fence).await?;
        let key = keys::node(node);
        let mut known = tx.get::<Node>(&key).await?.ok_or(Error::UnknownNode(node))?;
        tx.expect(key.clone(), Some(version.0));
        match emptied {
            Emptied::Node if known.state == NodeState::Draining => {
                known.state = NodeState::Drained;
            }
            Emptied::Node => return Ok(None),
            Emptied::Disks(disks) => {
                let emptied = known.disks.iter_mut().filter(|disk| disks.contains(&disk.id));
                emptied.for_each(|disk| disk.state = NodeDiskState::Clear);
            }
        }
        tx.put(key, &known);
        tx.put(keys::NODE_INTENT, &Mark);
        Ok(matches!(self.commit(tx).await?, Attempt::Committed(_)).then_some(known))
    }

    /// Gives up disks of a node, also of a removed one: from then on no receipt that names them
    /// counts. Clear disks stay clear. Or takes it back for disks that are in service after all.
    /// Idempotent. Returns the node.
    pub async fn set_disks_lost(
        &self,
        scope: &Scope,
        node: NodeId,
        disks: &[DiskId],
        is_lost: bool,
        fence: Option<&Condition>,
    ) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let key = keys::node(node);
            let mut known = tx.get::<Node>(&key).await?.ok_or(Error::UnknownNode(node))?;
            let before = known.clone();
            for disk in known.disks.iter_mut().filter(|disk| disks.contains(&disk.id)) {
                disk.state = match disk.state {
                    NodeDiskState::Clear if is_lost => NodeDiskState::Clear,
                    _ if is_lost => NodeDiskState::Lost,
                    _ => NodeDiskState::Present,
                };
            }
            if known == before {
                return Ok(known);
            }
            tx.put(key, &known);
            tx.put(keys::NODE_INTENT, &Mark);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(known);
            }
        }
        Err(Error::Conflict { what: "the disks of a node", tries: TRIES })
    }

    /// Declares that a lost node is not expected back, so that its replicas are rebuilt however many
    /// nodes are lost. Taken back when the node registers or opens a heartbeat stream. Idempotent.
    /// Returns the node.
    pub async fn give_up(&self, scope: &Scope, node: NodeId) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        self.change_node(node, |known| known.is_given_up = true).await
    }

    /// Announces that a node will be down until `ttl` from now, or with a `ttl` of zero that it is
    /// back; at most [`Node::MAINTENANCE_MAX`]. Returns `None`, and changes nothing, when the
    /// condition does not hold. The announcement expires by itself.
    pub async fn set_maintenance(
        &self,
        scope: &Scope,
        node: NodeId,
        ttl: Duration,
        grant: Grant,
    ) -> Result<Option<Node>, Error> {
        scope.require(Access::Admin)?;
        if ttl > Node::MAINTENANCE_MAX {
            let hours = Node::MAINTENANCE_MAX.as_secs() / 3_600;
            let what = format!("maintenance lasts at most {hours} hours, and can be renewed");
            return Err(Error::Invalid { what });
        }
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let mut known = tx.member(node).await?;
            let intent = tx.intent().await?;
            let now = self.now();
            let is_granted = match grant {
                Grant::Always => true,
                Grant::Renewal => known.maintenance_left(now).is_some(),
                Grant::Unchanged(looked_at) => looked_at == intent,
            };
            if !is_granted {
                return Ok(None);
            }
            let until = (!ttl.is_zero()).then(|| now.plus(ttl));
            if known.maintenance_until == until {
                return Ok(Some(known));
            }
            known.maintenance_until = until;
            tx.put(keys::node(node), &known);
            tx.put(keys::NODE_INTENT, &Mark);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(Some(known));
            }
        }
        Err(Error::Conflict { what: "the maintenance of a node", tries: TRIES })
    }

    /// Marks a node as leaving, or removes the mark. The receipts of a leaving node do not count,
    /// so that what [`Self::begin_holdings_scan`] finds stays true. A node that registers or starts to send
    /// heartbeats also clears the mark.
    pub async fn set_leaving(
        &self,
        scope: &Scope,
        node: NodeId,
        is_leaving: bool,
    ) -> Result<Node, Error> {
        scope.require(Access::Admin)?;
        self.change_node(node, |known| known.is_leaving = is_leaving).await
    }

    /// Removes the node for good, on the condition that it was leaving when its holdings were read
    /// and that no node's desired state has changed since. Returns `false` when that does not hold:
    /// read the holdings again.
    pub async fn remove_node(&self, scope: &Scope, holdings: &Holdings) -> Result<bool, Error> {
        scope.require(Access::Admin)?;
        if !holdings.is_leaving {
            return Ok(false);
        }
        let mut tx = self.begin().await?;
        let key = keys::node(holdings.node);
        let mut known = tx.member(holdings.node).await?;
        tx.expect(key.clone(), Some(holdings.version));
        // Its chunks may rely on nodes removed meanwhile.
        tx.expect(keys::NODE_INTENT, holdings.intent.0);
        known.state = NodeState::Removed;
        known.maintenance_until = None;
        known.is_leaving = false;
        tx.put(key, &known);
        tx.put(keys::NODE_INTENT, &Mark);
        Ok(matches!(self.commit(tx).await?, Attempt::Committed(_)))
    }

    /// Changes a node that is not removed. Returns the changed node.
    async fn change_node(&self, node: NodeId, change: impl Fn(&mut Node)) -> Result<Node, Error> {
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let before = tx.member(node).await?;
            let mut known = before.clone();
            change(&mut known);
            if known == before {
                return Ok(known);
            }
            tx.put(keys::node(node), &known);
            tx.put(keys::NODE_INTENT, &Mark);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(known);
            }
        }
        Err(Error::Conflict { what: "the desired state of a node", tries: TRIES })
    }
}

impl Transaction {
    /// Reads a member of the cluster; the commit requires it to be unchanged.
    pub(super) async fn member(&mut self, node: NodeId) -> Result<Node, Error> {
        let known = self.get::<Node>(&keys::node(node)).await?;
        let known = known.ok_or(Error::UnknownNode(node))?;
        if known.state == NodeState::Removed { Err(Error::NodeRemoved(node)) } else { Ok(known) }
    }

    /// Reads the version of all desired states; the commit requires it to be unchanged.
    async fn intent(&mut self) -> Result<NodeIntentVersion, Error> {
        let intent = self.peek_intent().await?;
        self.expect(keys::NODE_INTENT, intent.0);
        Ok(intent)
    }

    /// Reads the version of all desired states, without a condition on the commit.
    pub(super) async fn peek_intent(&self) -> Result<NodeIntentVersion, Error> {
        let found = self.peek_versioned::<Mark>(&keys::NODE_INTENT).await?;
        Ok(NodeIntentVersion(found.map(|(_, version)| version)))
    }
}

//! Policies: how many replicas files get, by default or below a directory.
//!
//! Files and directories carry the number of a policy, and new entries inherit that of their
//! directory. A policy never changes, so another replication factor is another number, and equal
//! policies share one: there are few of them. Each change of policies has a number, too, which
//! labels remember. What is below a directory gets its label in the background
//! ([`super::pending_policies`]), where it has an older one; a label never yields to an older change,
//! so that changes of directories within each other may be applied in any order.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dfs_types::{Access, FileKind, InodeId, Replication, Revision, Scope, Target};

use super::cluster::{check_replication, no_replication, replication};
use super::resolve::{DEPTH_MAX, Last, resolve};
use super::stat::gone;
use super::transaction::{Attempt, Transaction};
use super::{Namespace, Policy, TRIES};
use crate::records::entry::Entry;
use crate::records::inode::{Content, Inode};
use crate::records::policy::{PendingPolicy, PolicyChanges, PolicyLabel, PolicySweep};
use crate::records::setting::Mark;
use crate::{Error, keys};

/// Maximum number of policies: all that differ.
const POLICIES_MAX: usize =
    (Replication::FACTOR_MAX as usize) * (Replication::FACTOR_MAX as usize + 1);

/// The default and all policies.
#[derive(Debug, Clone)]
pub(super) struct Policies {
    pub(super) default: Replication,
    pub(super) by_number: BTreeMap<u32, Policy>,
}

impl Policies {
    /// Returns what a policy says; `None` if its record is missing or unreadable.
    pub(super) fn get(&self, number: u32) -> Option<Replication> {
        match number {
            0 => Some(self.default),
            _ => self.by_number.get(&number).map(|policy| policy.under(self.default)),
        }
    }
}

impl Policy {
    /// Returns the replication under a default. A policy without a write quorum has that of the
    /// default; where neither sets one, a write needs a majority of the replicas of the policy.
    fn under(self, default: Replication) -> Replication {
        Replication { factor: self.copies, min_write: self.min_write.or(default.min_write) }
    }
}

impl Namespace {
    /// Sets how many replicas files get that have no policy of their own, existing ones included;
    /// the latter in the background. Returns the revision from which it applies. Idempotent: the
    /// same replication again does not restart the pass over existing files.
    pub async fn set_replication(
        &self,
        scope: &Scope,
        replication: Replication,
    ) -> Result<Revision, Error> {
        scope.require(Access::Admin)?;
        check_replication(replication)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let before = tx.expect_default().await?;
            if before == replication {
                return Ok(tx.revision());
            }
            tx.put(keys::REPLICATION, &replication);
            if before.factor != replication.factor {
                tx.put(keys::POLICY_SWEEP, &PolicySweep::default());
            }
            // Checks of safe-to-stop depend on it.
            tx.put(keys::NODE_INTENT, &Mark);
            if let Attempt::Committed(revision) = self.commit(tx).await? {
                return Ok(revision);
            }
        }
        Err(Error::Conflict { what: "the replication factor", tries: TRIES })
    }

    /// Sets the policy of a file, or of a directory and everything below it; `None` for the default
    /// of the cluster. New entries have it from the commit on, existing ones get it in the
    /// background. Replaces earlier policies below the directory. A symlink is followed. Does nothing
    /// if the newest change was the same.
    pub async fn set_policy(
        &self,
        scope: &Scope,
        target: &Target,
        policy: Option<Policy>,
    ) -> Result<Revision, Error> {
        scope.require(Access::Admin)?;
        if let Some(Policy { copies, min_write }) = policy {
            check_replication(Replication { factor: copies, min_write })?;
        }
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let inode = resolve(&mut tx, target, Last::Follow).await?.inode()?;
            let key = keys::inode(inode);
            let record = tx.get::<Inode>(&key).await?;
            let mut record = record.ok_or_else(|| gone(target, inode))?;
            match record.content {
                Content::File(_) | Content::Directory(_) => {}
                Content::Symlink { .. } => {
                    return Err(Error::IsASymlink { target: target.clone() });
                }
                _ => return Err(Error::IsSpecial { target: target.clone(), kind: record.kind() }),
            }
            let number = match policy {
                Some(policy) => tx.policy_number(policy).await?,
                None => 0,
            };
            let changes = tx.get::<PolicyChanges>(&keys::POLICY_CHANGES).await?;
            let newest = changes.unwrap_or_default().newest;
            // A repeat of the newest change must not begin it again.
            if record.policy == (PolicyLabel { number, change: newest }) && newest > 0 {
                return Ok(tx.revision());
            }
            let change = newest + 1;
            tx.put(keys::POLICY_CHANGES, &PolicyChanges { newest: change, is_pending: true });
            let label = PolicyLabel { number, change };
            record.policy = label;
            record.ctime = self.now();
            tx.put(key, &record);
            tx.put(keys::pending_policy(inode), &PendingPolicy { label, after: Bytes::new() });
            tx.put(keys::NODE_INTENT, &Mark);
            if let Attempt::Committed(revision) = self.commit(tx).await? {
                return Ok(revision);
            }
        }
        Err(Error::Conflict { what: "the policy of a file or directory", tries: TRIES })
    }

    /// Returns the number of a policy, which is recorded if nothing had it before.
    pub(super) async fn number_of(&self, policy: Policy) -> Result<u32, Error> {
        let Policy { copies, min_write } = policy;
        check_replication(Replication { factor: copies, min_write })?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let number = tx.policy_number(policy).await?;
            if tx.is_read_only() {
                return Ok(number);
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(number);
            }
        }
        Err(Error::Conflict { what: "a new policy", tries: TRIES })
    }
}

impl Transaction {
    /// Reads the default and all policies; unreadable ones are missing.
    pub(super) async fn policies(&self) -> Result<Policies, Error> {
        let default = replication(self).await?;
        let found = self.try_range::<Policy>(keys::POLICIES, &[], POLICIES_MAX).await?;
        let by_number = found.into_iter();
        let by_number =
            by_number.filter_map(|(key, policy)| Some((keys::policy_number(&key)?, policy.ok()?)));
        Ok(Policies { default, by_number: by_number.collect() })
    }

    /// Returns what these policies say; the default in place of one that is missing or unreadable.
    pub(super) async fn replication_of(
        &self,
        numbers: BTreeSet<u32>,
    ) -> Result<BTreeMap<u32, Replication>, Error> {
        let default = replication(self).await?;
        let mut found = BTreeMap::new();
        for number in numbers {
            found.insert(number, self.replication_under(number, default).await?);
        }
        Ok(found)
    }

    /// Returns what a policy says under this default; the default in place of a policy that is
    /// missing or unreadable.
    pub(super) async fn replication_under(
        &self,
        number: u32,
        default: Replication,
    ) -> Result<Replication, Error> {
        if number == 0 {
            return Ok(default);
        }
        match self.peek::<Policy>(&keys::policy(number)).await {
            Ok(policy) => Ok(policy.map_or(default, |policy| policy.under(default))),
            Err(Error::Damaged { .. }) => Ok(default),
            Err(error) => Err(error),
        }
    }

    /// Returns the default; the commit requires it to be unchanged, so that the pass that applies
    /// another one finds every chunk committed under this one.
    pub(super) async fn expect_default(&mut self) -> Result<Replication, Error> {
        self.get::<Replication>(&keys::REPLICATION).await?.ok_or_else(no_replication)
    }

    /// Returns the number of a policy; the commit records one that is new.
    async fn policy_number(&mut self, policy: Policy) -> Result<u32, Error> {
        let found = self.range::<Policy>(keys::POLICIES, &[], POLICIES_MAX).await?;
        if let Some((key, _)) = found.iter().find(|(_, found)| *found == policy) {
            let damaged = || Error::Damaged { key: keys::show(key), what: "not a policy's key" };
            return keys::policy_number(key).ok_or_else(damaged);
        }
        let last = found.last().and_then(|(key, _)| keys::policy_number(key));
        let number = last.unwrap_or(0) + 1;
        self.expect(keys::policy(number), None);
        self.put(keys::policy(number), &policy);
        Ok(number)
    }

    /// Returns the number of the newest change of policies.
    pub(super) async fn newest_policy_change(&self) -> Result<u64, Error> {
        let changes = self.peek::<PolicyChanges>(&keys::POLICY_CHANGES).await?;
        Ok(changes.unwrap_or_default().newest)
    }

    /// Lets the label of an inode be applied to its chunks, or to what is below it.
    pub(super) async fn apply_later(
        &mut self,
        inode: InodeId,
        label: PolicyLabel,
    ) -> Result<(), Error> {
        let changes = self.get::<PolicyChanges>(&keys::POLICY_CHANGES).await?;
        let changes = changes.unwrap_or_default();
        if !changes.is_pending {
            self.put(keys::POLICY_CHANGES, &PolicyChanges { is_pending: true, ..changes });
        }
        self.put(keys::pending_policy(inode), &PendingPolicy { label, after: Bytes::new() });
        Ok(())
    }

    /// Returns the label of an entry about to be moved out of `parent`, if it needs another one.
    ///
    /// While a change of a directory is being applied, an entry moved past the position of that walk
    /// would be missed, and one moved into its way would get a policy it had not. So the entry gets
    /// at once the label that it would have got at its old place, as of the newest change.
    pub(super) async fn policy_kept(
        &mut self,
        moved: Entry,
        parent: InodeId,
    ) -> Result<Option<PolicyLabel>, Error> {
        let changes = self.get::<PolicyChanges>(&keys::POLICY_CHANGES).await?;
        let changes = changes.unwrap_or_default();
        let is_labelled = matches!(moved.kind, FileKind::File | FileKind::Directory);
        if !changes.is_pending || !is_labelled {
            return Ok(None);
        }
        let Some(record) = self.peek::<Inode>(&keys::inode(moved.inode)).await? else {
            return Ok(None);
        };
        let own = record.policy;
        // An older change does not pass a directory with a newer label.
        let (mut newest, mut covering) = (own.change, None);
        let mut here = parent;
        for _ in 0..DEPTH_MAX {
            let pending = self.peek::<PendingPolicy>(&keys::pending_policy(here)).await?;
            if let Some(PendingPolicy { label, .. }) = pending
                && label.change > newest
            {
                (newest, covering) = (label.change, Some(label));
            }
            let Some(above) = self.peek::<Inode>(&keys::inode(here)).await? else { break };
            newest = newest.max(above.policy.change);
            match above.directory() {
                Some(directory) if here != InodeId::ROOT => here = directory.parent,
                _ => break,
            }
        }
        if let Some(label) = covering {
            self.apply_later(moved.inode, label).await?;
        }
        let number = covering.map_or(own.number, |label| label.number);
        Ok(Some(PolicyLabel { number, change: changes.newest }))
    }

    /// Gives an inode another label.
    pub(super) async fn set_label(
        &mut self,
        inode: InodeId,
        label: PolicyLabel,
    ) -> Result<(), Error> {
        let key = keys::inode(inode);
        if let Some(record) = self.get::<Inode>(&key).await? {
            self.put(key, &Inode { policy: label, ..record });
        }
        Ok(())
    }
}

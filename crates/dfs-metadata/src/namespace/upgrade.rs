//! Raising the write level.
//!
//! ```text
//!  1. close   least = L: no member below L can join any more
//!  2. check   does every coordinator, and every datanode not Removed, read L?
//!               no: take `least` back and list the members that do not
//!  3. raise   written = L, conditioned on the version of `s/format`
//! ```
//!
//! Each step is one commit, so a crash leaves the store before or after it, and the next holder of
//! the worker lease continues: a store with `least` above `written` is one with members still to be
//! checked. A member missed in step 2 because it was frozen does no harm: its changes are
//! conditioned on `s/format`.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_types::{Access, CoordinatorId, Level, NodeState, Scope};
use tokio::time::Instant;

use super::transaction::{Attempt, Transaction};
use super::{Namespace, TRIES, Unreadable};
use crate::engine::Condition;
use crate::records::format::{Coordinator, Coordinators, StoreFormat, Upgrade};
use crate::{Error, keys};

/// Time without renewal after which a coordinator counts as stopped.
const COORDINATOR_SILENCE_MAX: Duration = Duration::from_mins(2);
/// Maximum number of members listed when a level cannot be raised.
const NAMED_MAX: usize = 10;

/// Progress of raising the write level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeStatus {
    /// The level that is currently written.
    pub written: Level,
    /// The level that a member needs to join; above `written` while the level is being raised.
    pub least: Level,
    /// The requested level, at least `written`.
    pub wanted: Level,
    /// The newest level that the release of this process reads.
    pub newest: Level,
    /// The members, at most ten, that prevented the requested level from being raised.
    pub blocked_by: Vec<String>,
}

/// Outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeStep {
    /// Something was changed, here or by another coordinator; there may be more to do.
    Changed,
    /// Nothing to do.
    Idle,
}

/// When each coordinator was last seen to renew its entry, by the monotonic clock of the process
/// that raises the level.
#[derive(Debug, Default)]
pub struct CoordinatorSightings(BTreeMap<CoordinatorId, (u64, Instant)>);

impl CoordinatorSightings {
    /// Records the entries seen `now`, and returns coordinators silent for too long.
    fn silent(&mut self, entries: &[Coordinator], now: Instant) -> Vec<CoordinatorId> {
        self.0.retain(|id, _| entries.iter().any(|entry| entry.id == *id));
        let mut silent = Vec::new();
        for entry in entries {
            let (seen, since) = self.0.entry(entry.id).or_insert((entry.seen, now));
            if *seen != entry.seen {
                (*seen, *since) = (entry.seen, now);
            } else if now.saturating_duration_since(*since) >= COORDINATOR_SILENCE_MAX {
                silent.push(entry.id);
            }
        }
        silent
    }
}

impl Namespace {
    /// Returns the progress of raising the write level.
    pub async fn upgrade_status(&self, scope: &Scope) -> Result<UpgradeStatus, Error> {
        scope.require(Access::Read)?;
        self.refresh_level().await?;
        let tx = self.begin().await?;
        let upgrade = tx.peek::<Upgrade>(&keys::UPGRADE).await?;
        Ok(self.describe_upgrade(&tx, upgrade))
    }

    /// Requests the newest level that this release reads. The holder of the worker lease raises it,
    /// or lists the members that run an older release.
    pub async fn finalize_upgrade(&self, scope: &Scope) -> Result<UpgradeStatus, Error> {
        scope.require(Access::Admin)?;
        self.refresh_level().await?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let before = tx.get::<Upgrade>(&keys::UPGRADE).await?;
            let wanted = self.inner.options.level;
            if wanted <= tx.format().format.written {
                return Ok(self.describe_upgrade(&tx, before));
            }
            let upgrade = Upgrade { wanted, blocked_by: Vec::new() };
            tx.put(keys::UPGRADE, &upgrade);
            let status = self.describe_upgrade(&tx, Some(upgrade));
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(status);
            }
        }
        Err(Error::Conflict { what: "the requested write level", tries: TRIES })
    }

    /// Takes the next step towards the requested level, or towards `always`, if set. Only for the
    /// holder of the worker lease.
    pub async fn step_upgrade(
        &self,
        scope: &Scope,
        sightings: &mut CoordinatorSightings,
        now: Instant,
        always: Option<Level>,
        fence: Option<&Condition>,
    ) -> Result<UpgradeStep, Error> {
        scope.require(Access::Admin)?;
        self.refresh_level().await?;
        let mut tx = self.begin_fenced(fence).await?;
        let (Coordinators(entries), version) = match tx.peek_versioned(&keys::COORDINATORS).await? {
            Some((entries, version)) => (entries, Some(version)),
            None => (Coordinators::default(), None),
        };
        let silent = sightings.silent(&entries, now);
        if !silent.is_empty() {
            tx.expect(keys::COORDINATORS, version);
            let mut left = entries;
            left.retain(|entry| !silent.contains(&entry.id));
            tx.put(keys::COORDINATORS, &Coordinators(left));
            self.commit(tx).await?;
            return Ok(UpgradeStep::Changed);
        }
        let StoreFormat { written, least } = tx.format().format;
        let asked = tx.get::<Upgrade>(&keys::UPGRADE).await?;
        if least > written {
            let blocked_by = self.members_below(&tx, &entries, least).await?;
            if blocked_by.is_empty() {
                tracing::info!(level = %least, "write level raised");
                tx.put(keys::FORMAT, &StoreFormat { written: least, least });
            } else {
                tracing::warn!(level = %least, ?blocked_by, "write level cannot be raised");
                tx.put(keys::FORMAT, &StoreFormat { written, least: written });
                let wanted = asked.map_or(least, |asked| asked.wanted);
                tx.put(keys::UPGRADE, &Upgrade { wanted, blocked_by });
            }
        } else {
            let is_open = |asked: &&Upgrade| asked.blocked_by.is_empty();
            let open = asked.as_ref().filter(is_open).map(|asked| asked.wanted);
            let Some(wanted) = open.max(always).filter(|wanted| *wanted > written) else {
                return Ok(UpgradeStep::Idle);
            };
            // `least` is not raised needlessly: that would refuse members that restart now.
            let blocked_by = self.members_below(&tx, &entries, wanted).await?;
            if blocked_by.is_empty() {
                tx.put(keys::FORMAT, &StoreFormat { written, least: wanted });
            } else {
                let upgrade = Upgrade { wanted, blocked_by };
                if asked.as_ref() == Some(&upgrade) {
                    return Ok(UpgradeStep::Idle);
                }
                tx.put(keys::UPGRADE, &upgrade);
            }
        }
        if let Attempt::Committed(_) = self.commit(tx).await? {
            self.refresh_level().await?;
        }
        Ok(UpgradeStep::Changed)
    }

    /// Lists members, at most ten, that do not read `level`.
    async fn members_below(
        &self,
        tx: &Transaction,
        coordinators: &[Coordinator],
        level: Level,
    ) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        if self.inner.options.level < level {
            names.push(format!("this coordinator (level {})", self.inner.options.level));
        }
        for Coordinator { id, level, address, version, .. } in
            coordinators.iter().filter(|coordinator| coordinator.level < level)
        {
            names.push(format!("coordinator {id} at {address} (release {version}, level {level})"));
        }
        let nodes = super::nodes::all(tx).await?;
        for Unreadable { key, why } in nodes.unreadable {
            names.push(format!("the datanode of {key}, whose record is unreadable ({why})"));
        }
        for (id, node) in nodes.nodes {
            if node.state != NodeState::Removed && node.level < level {
                let (address, version, level) = (node.address, node.version, node.level);
                names
                    .push(format!("datanode {id} at {address} (release {version}, level {level})"));
            }
        }
        names.truncate(NAMED_MAX);
        Ok(names)
    }

    fn describe_upgrade(&self, tx: &Transaction, asked: Option<Upgrade>) -> UpgradeStatus {
        let StoreFormat { written, least } = tx.format().format;
        let asked = asked.filter(|asked| asked.wanted > written);
        let asked = asked.unwrap_or(Upgrade { wanted: written, blocked_by: Vec::new() });
        let Upgrade { wanted, blocked_by } = asked;
        UpgradeStatus { written, least, wanted, newest: self.inner.options.level, blocked_by }
    }
}

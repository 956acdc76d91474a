//! One attempt at a change: reads at a snapshot, the conditions that follow from them, and writes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use dfs_types::{Change, Incarnation, Level, Revision};

use super::Namespace;
use super::format::CurrentFormat;
use crate::codec::Record;
use crate::engine::{Commit, Condition, Outcome, Snapshot, Versioned, Write, prefix_end};
use crate::{Error, keys};

/// Reads at one snapshot, and collects writes that are committed on the condition that the relevant
/// reads still hold.
pub(super) struct Transaction {
    snapshot: Box<dyn Snapshot>,
    /// What was found under the keys that were [read ahead](Self::read_ahead).
    ahead: BTreeMap<Bytes, Option<Versioned>>,
    incarnation: Incarnation,
    /// Write level of the writes; the commit requires it to be unchanged.
    format: CurrentFormat,
    /// The newest level that is read.
    newest: Level,
    fence: Option<Condition>,
    /// Conditions by key.
    conditions: BTreeMap<Bytes, Condition>,
    empty: Vec<Bytes>,
    writes: BTreeMap<Bytes, Write>,
}

/// Outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The change is durable.
    Committed(Revision),
    /// Something that was read has changed; nothing was written.
    Conflict,
}

impl Namespace {
    pub(super) async fn begin(&self) -> Result<Transaction, Error> {
        let snapshot = self.inner.components.engine.snapshot().await?;
        Ok(Transaction {
            snapshot,
            ahead: BTreeMap::new(),
            incarnation: self.inner.identity.incarnation,
            format: self.current_format(),
            newest: self.inner.options.level,
            fence: None,
            conditions: BTreeMap::new(),
            empty: Vec::new(),
            writes: BTreeMap::new(),
        })
    }

    /// Begins a change that must not take effect once `fence` no longer holds.
    pub(super) async fn begin_fenced(
        &self,
        fence: Option<&Condition>,
    ) -> Result<Transaction, Error> {
        let mut tx = self.begin().await?;
        tx.fence = fence.cloned();
        Ok(tx)
    }

    /// Commits. [`Error::LeaseLost`] when the fence did not hold.
    pub(super) async fn commit(&self, tx: Transaction) -> Result<Attempt, Error> {
        let is_fenced = tx.fence.is_some();
        // Shared by all commits of a group, so that the engine compares it once.
        let conditions = std::iter::once(tx.format.condition()).chain(tx.fence);
        let conditions = conditions.chain(tx.conditions.into_values());
        let conditions = conditions.chain(tx.empty.into_iter().map(Condition::PrefixEmpty));
        let commit =
            Commit { conditions: conditions.collect(), writes: tx.writes.into_values().collect() };
        let changes_chunks =
            commit.writes.iter().any(|write| write.key().starts_with(keys::CHUNKS));
        match self.inner.components.committer.commit(commit).await? {
            Outcome::Committed(revision) => {
                if changes_chunks {
                    self.inner.chunks_changed_at.fetch_max(revision.0, Ordering::Relaxed);
                }
                Ok(Attempt::Committed(revision))
            }
            Outcome::Conflict { condition: 0 } => {
                self.refresh_level().await?;
                Ok(Attempt::Conflict)
            }
            Outcome::Conflict { condition: 1 } if is_fenced => Err(Error::LeaseLost),
            Outcome::Conflict { .. } => Ok(Attempt::Conflict),
        }
    }
}

impl Transaction {
    pub(super) fn revision(&self) -> Revision {
        self.snapshot.revision()
    }

    /// Returns the state of an inode after a commit at that revision.
    pub(super) fn change(&self, revision: Revision) -> Change {
        Change { incarnation: self.incarnation, revision }
    }

    /// Returns the state of what this transaction writes; the commit fills in the revision.
    pub(super) fn new_change(&self) -> Change {
        self.change(Revision::default())
    }

    /// Returns the write level; the commit requires it to be unchanged.
    pub(super) fn format(&self) -> CurrentFormat {
        self.format
    }

    /// Reads several keys at once, so that reads of single records that follow need not wait for the
    /// engine each. Sets no condition.
    pub(super) async fn read_ahead(&mut self, keys: Vec<Bytes>) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let found = self.snapshot.get_many(&keys).await?;
        self.ahead.extend(keys.into_iter().zip(found));
        Ok(())
    }

    async fn read(&self, key: &Bytes) -> Result<Option<Versioned>, Error> {
        match self.ahead.get(key) {
            Some(found) => Ok(found.clone()),
            None => Ok(self.snapshot.get(key).await?),
        }
    }

    /// Reads a record without a condition.
    pub(super) async fn peek<R: Record>(&self, key: &Bytes) -> Result<Option<R>, Error> {
        let found = self.read(key).await?;
        found.map(|found| R::decode(key, &found.value, self.newest)).transpose()
    }

    /// Reads a record; the commit requires it to be unchanged.
    pub(super) async fn get<R: Record>(&mut self, key: &Bytes) -> Result<Option<R>, Error> {
        let found = self.read(key).await?;
        self.expect(key.clone(), found.as_ref().map(|found| found.version));
        found.map(|found| R::decode(key, &found.value, self.newest)).transpose()
    }

    /// Reads a record and the version that a condition on it would name.
    pub(super) async fn peek_versioned<R: Record>(
        &self,
        key: &Bytes,
    ) -> Result<Option<(R, Revision)>, Error> {
        let found = self.read(key).await?;
        let found =
            found.map(|found| Ok((R::decode(key, &found.value, self.newest)?, found.version)));
        found.transpose()
    }

    /// Reads records without a condition, in the order of the keys.
    pub(super) async fn peek_many<R: Record>(
        &self,
        keys: &[Bytes],
    ) -> Result<Vec<Option<R>>, Error> {
        self.try_peek_many(keys).await?.into_iter().collect()
    }

    /// Reads records without a condition, in the order of the keys; each unreadable one is a
    /// separate error.
    pub(super) async fn try_peek_many<R: Record>(
        &self,
        keys: &[Bytes],
    ) -> Result<Vec<Result<Option<R>, Error>>, Error> {
        let found = self.try_peek_many_versioned(keys).await?.into_iter();
        Ok(found.map(|found| Ok(found?.map(|(record, _)| record))).collect())
    }

    /// Reads records with their versions, in the order of the keys.
    pub(super) async fn peek_many_versioned<R: Record>(
        &self,
        keys: &[Bytes],
    ) -> Result<Vec<Option<(R, Revision)>>, Error> {
        self.try_peek_many_versioned(keys).await?.into_iter().collect()
    }

    /// Reads records with their versions, in the order of the keys; each unreadable one is a
    /// separate error.
    pub(super) async fn try_peek_many_versioned<R: Record>(
        &self,
        keys: &[Bytes],
    ) -> Result<Vec<Result<Option<(R, Revision)>, Error>>, Error> {
        let found = self.snapshot.get_many(keys).await?;
        let decode = |(key, found): (&Bytes, Option<Versioned>)| {
            let decode =
                |found: Versioned| Ok((R::decode(key, &found.value, self.newest)?, found.version));
            found.map(decode).transpose()
        };
        Ok(keys.iter().zip(found).map(decode).collect())
    }

    /// Reads records under a prefix without a condition, in key order; each unreadable one is a
    /// separate error.
    pub(super) async fn try_range<R: Record>(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Result<R, Error>)>, Error> {
        let found = self.snapshot.range(prefix, after, limit).await?;
        let decode = |(key, found): (Bytes, Versioned)| {
            let record = R::decode(&key, &found.value, self.newest);
            (key, record)
        };
        Ok(found.into_iter().map(decode).collect())
    }

    /// Reads records under a prefix without a condition, in key order.
    pub(super) async fn range<R: Record>(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, R)>, Error> {
        let found = self.try_range(prefix, after, limit).await?;
        found.into_iter().map(|(key, record)| Ok((key, record?))).collect()
    }

    /// Reads the record with the greatest key under a prefix that is less than `key`, without a
    /// condition.
    pub(super) async fn last_before<R: Record>(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, R)>, Error> {
        let Some((key, found)) = self.snapshot.last_before(prefix, key).await? else {
            return Ok(None);
        };
        let record = R::decode(&key, &found.value, self.newest)?;
        Ok(Some((key, record)))
    }

    /// Returns the first keys under a prefix.
    pub(super) async fn range_keys(
        &self,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Bytes>, Error> {
        let found = self.snapshot.range(prefix, &[], limit).await?;
        Ok(found.into_iter().map(|(key, _)| key).collect())
    }

    /// Returns the last key under a prefix.
    pub(super) async fn last_key(&self, prefix: &[u8]) -> Result<Option<Bytes>, Error> {
        let Some(end) = prefix_end(prefix) else { return Ok(None) };
        Ok(self.snapshot.last_before(prefix, &end).await?.map(|(key, _)| key))
    }

    /// Makes the commit require that the key is still at this version, or absent.
    pub(super) fn expect(&mut self, key: Bytes, version: Option<Revision>) {
        let condition = match version {
            Some(version) => Condition::Version(key.clone(), version),
            None => Condition::Absent(key.clone()),
        };
        self.conditions.insert(key, condition);
    }

    /// Returns the version that the commit expects of a key.
    pub(super) fn expected(&self, key: &Bytes) -> Option<Revision> {
        match self.conditions.get(key)? {
            Condition::Version(_, version) => Some(*version),
            _ => None,
        }
    }

    /// Makes the commit require that no key is under the prefix.
    pub(super) fn expect_empty(&mut self, prefix: Bytes) {
        self.empty.push(prefix);
    }

    pub(super) fn put<R: Record>(&mut self, key: Bytes, record: &R) {
        self.writes
            .insert(key.clone(), Write::Put(key, record.encode(self.format.format.written).into()));
    }

    pub(super) fn delete(&mut self, key: Bytes) {
        self.writes.insert(key.clone(), Write::Delete(key));
    }

    /// Returns whether there is nothing to commit.
    pub(super) fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// Returns the number of distinct keys named so far.
    pub(super) fn keys(&self) -> usize {
        let unconditional = self.writes.keys().filter(|key| !self.conditions.contains_key(*key));
        self.conditions.len()
            + unconditional.count()
            + self.empty.len()
            + 1
            + usize::from(self.fence.is_some())
    }
}

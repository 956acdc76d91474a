//! An engine in memory, for tests and simulation. Nothing outlives the last handle.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::Revision;

use crate::change_log::ChangeLog;
use crate::engine::lease::LeaseGrant;
use crate::engine::{
    Change, Commit, Condition, Engine, EngineError, Outcome, Snapshot, Versioned, Watch,
    bounds_before,
};
use crate::local_leases::LocalLeases;

/// Keeps all keys in a map, with the versions that live snapshots still see.
///
/// A cheap handle; clones share the store. Calls never wait, so a simulation that uses it is
/// deterministic.
#[derive(Debug, Clone)]
pub struct MemoryEngine {
    state: Arc<Mutex<State>>,
    changes: ChangeLog,
    leases: Arc<LocalLeases>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Number of snapshots per revision.
    snapshots: BTreeMap<Revision, usize>,
    /// Keys with old versions, or removed ones, to prune later.
    stale: BTreeSet<Bytes>,
}

#[derive(Debug)]
struct Version {
    revision: Revision,
    /// `None` when the key was removed.
    value: Option<Bytes>,
}

impl MemoryEngine {
    /// Creates an empty store.
    pub fn new() -> Self {
        let state = State::default();
        Self {
            changes: ChangeLog::new(state.revision),
            state: Arc::new(Mutex::new(state)),
            leases: Arc::default(),
        }
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn get(&self, key: &[u8], at: Revision) -> Option<Versioned> {
        visible(self.keys.get(key)?, at)
    }

    /// Returns keys that start with `prefix` and are greater than `after`, in order.
    fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        after: &'a [u8],
        at: Revision,
    ) -> impl Iterator<Item = (Bytes, Versioned)> + 'a {
        let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        self.keys
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, versions)| Some((key.clone(), visible(versions, at)?)))
    }

    /// Returns the greatest key that starts with `prefix` and is less than `key`.
    fn last_before(&self, prefix: &[u8], key: &[u8], at: Revision) -> Option<(Bytes, Versioned)> {
        let (start, end) = bounds_before(prefix, key)?;
        let bounds = (Bound::Included(&*start), Bound::Excluded(&*end));
        let mut older = self.keys.range::<[u8], _>(bounds).rev();
        older.find_map(|(key, versions)| Some((key.clone(), visible(versions, at)?)))
    }

    fn commit(&mut self, commit: &Commit, changes: &mut Vec<Change>) -> Outcome {
        let now = self.revision;
        let Ok(failing) = commit.first_failing(
            |key| Ok::<_, Infallible>(self.get(key, now).map(|found| found.version)),
            |prefix| Ok(self.range(prefix, &[], now).next().is_some()),
        );
        if let Some(condition) = failing {
            return Outcome::Conflict { condition };
        }
        if commit.writes.is_empty() {
            return Outcome::Committed(now);
        }
        let value = |key: &Bytes| Ok::<_, Infallible>(self.get(key, now).map(|found| found.value));
        let Ok(effects) = commit.effects(value);
        let effects = match effects {
            Ok(effects) => effects,
            Err(condition) => return Outcome::Conflict { condition },
        };
        self.revision = now.next();
        for (key, value) in effects {
            if value.is_none() && self.get(&key, now).is_none() {
                continue;
            }
            changes.push(Change {
                key: key.clone(),
                value: value.clone(),
                revision: self.revision,
            });
            let version = Version { revision: self.revision, value };
            self.keys.entry(key.clone()).or_default().push(version);
            self.prune(key);
        }
        Outcome::Committed(self.revision)
    }

    /// Drops the versions of a key that no snapshot can see.
    fn prune(&mut self, key: Bytes) {
        let oldest = self.snapshots.keys().next().copied().unwrap_or(self.revision);
        let Some(versions) = self.keys.get_mut(&key) else { return };
        let seen = versions.partition_point(|version| version.revision <= oldest);
        versions.drain(..seen.saturating_sub(1));
        match versions.as_slice() {
            [Version { value: None, .. }] => {
                self.keys.remove(&key);
                self.stale.remove(&key);
            }
            [_] => {
                self.stale.remove(&key);
            }
            _ => {
                self.stale.insert(key);
            }
        }
    }

    fn release(&mut self, snapshot: Revision) {
        if let Some(count) = self.snapshots.get_mut(&snapshot) {
            *count -= 1;
            if *count == 0 {
                let was_oldest = self.snapshots.keys().next() == Some(&snapshot);
                self.snapshots.remove(&snapshot);
                if was_oldest {
                    self.stale.clone().into_iter().for_each(|key| self.prune(key));
                }
            }
        }
    }
}

fn visible(versions: &[Version], at: Revision) -> Option<Versioned> {
    let version = versions.iter().rev().find(|version| version.revision <= at)?;
    let value = version.value.clone()?;
    Some(Versioned { value, version: version.revision })
}

struct MemorySnapshot {
    state: Arc<Mutex<State>>,
    revision: Revision,
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        lock(&self.state).release(self.revision);
    }
}

#[async_trait]
impl Snapshot for MemorySnapshot {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        Ok(lock(&self.state).get(key, self.revision))
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, EngineError> {
        let state = lock(&self.state);
        Ok(keys.iter().map(|key| state.get(key, self.revision)).collect())
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, EngineError> {
        Ok(lock(&self.state).range(prefix, after, self.revision).take(limit).collect())
    }

    async fn last_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Versioned)>, EngineError> {
        Ok(lock(&self.state).last_before(prefix, key, self.revision))
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let mut state = lock(&self.state);
        let revision = state.revision;
        *state.snapshots.entry(revision).or_default() += 1;
        Ok(Box::new(MemorySnapshot { state: self.state.clone(), revision }))
    }

    async fn commit_batch(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        commits.iter().try_for_each(Commit::check_limits)?;
        let mut changes = Vec::new();
        let mut state = lock(&self.state);
        let outcomes = commits.iter().map(|commit| state.commit(commit, &mut changes)).collect();
        // Recorded under the lock, as the log requires commit order.
        self.changes.record(changes);
        Ok(outcomes)
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Box<dyn Watch>, EngineError> {
        self.changes.watch(prefix, from)
    }

    async fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        self.leases.lease(self, name, holder, ttl, condition).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Harness;
    use crate::engine::Write;

    #[async_trait]
    impl Harness for MemoryEngine {
        async fn engine(&mut self) -> Arc<dyn Engine> {
            Arc::new(self.clone())
        }

        async fn reopen(&mut self) -> bool {
            false
        }
    }

    mod conformance {
        crate::engine_conformance!(super::MemoryEngine::new());
    }

    async fn write(engine: &MemoryEngine, write: Write) {
        let commit = Commit { conditions: vec![], writes: vec![write] };
        engine.commit_batch(vec![commit]).await.unwrap();
    }

    #[tokio::test]
    async fn unseen_versions_are_pruned() {
        let engine = MemoryEngine::new();
        let key = Bytes::from_static(b"a");
        let put = || Write::Put(key.clone(), Bytes::new());
        let versions = || lock(&engine.state).keys.get(&key).map(Vec::len);
        write(&engine, put()).await;
        let first = engine.snapshot().await.unwrap();
        write(&engine, put()).await;
        let second = engine.snapshot().await.unwrap();
        write(&engine, put()).await;
        write(&engine, Write::Delete(key.clone())).await;
        assert_eq!(versions(), Some(4));
        drop(first);
        assert_eq!(versions(), Some(3));
        drop(second);
        assert_eq!(versions(), None);
        assert!(lock(&engine.state).stale.is_empty());
    }
}

//! Wrappers around engines for tests: to delay, to count, to fail.
//!
//! A wrapper implements [`ForwardingEngine`], overrides the methods it is about, and thereby is an
//! [`Engine`]. The method names differ from those of [`Engine`], so that both traits can be in
//! scope.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::Revision;

use crate::engine::lease::LeaseGrant;
use crate::engine::{Commit, Condition, Engine, EngineError, Outcome, Snapshot, Versioned, Watch};

/// An engine that forwards each call to another one, unless it overrides the method.
#[async_trait]
pub trait ForwardingEngine: Send + Sync + 'static {
    /// Returns the wrapped engine.
    fn inner(&self) -> &dyn Engine;

    /// Implements [`Engine::snapshot`].
    async fn forward_snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        self.inner().snapshot().await
    }

    /// Implements [`Engine::commit_batch`].
    async fn forward_commits(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        self.inner().commit_batch(commits).await
    }

    /// Implements [`Engine::watch`].
    async fn forward_watch(
        &self,
        prefix: Bytes,
        from: Revision,
    ) -> Result<Box<dyn Watch>, EngineError> {
        self.inner().watch(prefix, from).await
    }

    /// Implements [`Engine::lease`].
    async fn forward_lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        self.inner().lease(name, holder, ttl, condition).await
    }
}

#[async_trait]
impl<F: ForwardingEngine> Engine for F {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        self.forward_snapshot().await
    }

    async fn commit_batch(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        self.forward_commits(commits).await
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<Box<dyn Watch>, EngineError> {
        self.forward_watch(prefix, from).await
    }

    async fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        self.forward_lease(name, holder, ttl, condition).await
    }
}

/// A snapshot that wraps another one.
#[async_trait]
pub trait ForwardingSnapshot: Send + Sync {
    /// Returns the wrapped snapshot.
    fn inner(&self) -> &dyn Snapshot;

    /// Runs before each read; its error fails the read.
    async fn before_read(&self, read: Read) -> Result<(), EngineError>;
}

/// A kind of read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// [`Snapshot::get`] or [`Snapshot::get_many`].
    Keys,
    /// [`Snapshot::range`] or [`Snapshot::last_before`].
    Range,
}

#[async_trait]
impl<F: ForwardingSnapshot> Snapshot for F {
    fn revision(&self) -> Revision {
        self.inner().revision()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        self.before_read(Read::Keys).await?;
        self.inner().get(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, EngineError> {
        self.before_read(Read::Keys).await?;
        self.inner().get_many(keys).await
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, EngineError> {
        self.before_read(Read::Range).await?;
        self.inner().range(prefix, after, limit).await
    }

    async fn last_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Versioned)>, EngineError> {
        self.before_read(Read::Range).await?;
        self.inner().last_before(prefix, key).await
    }
}

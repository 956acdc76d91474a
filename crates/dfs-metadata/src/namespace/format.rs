//! The write level of the cluster as this process knows it.
//!
//! Each change is encoded for the level read last, on the condition that `s/format` has not changed
//! since. A process that was frozen while the level was raised therefore cannot commit an older
//! format late: its commit conflicts, and the retry reads the level and encodes again.

use std::sync::PoisonError;
use std::time::Duration;

use dfs_types::{Access, Level, Revision, Scope};

use super::Namespace;
use crate::codec::Record as _;
use crate::engine::lease::LeaseGrant;
use crate::engine::{Condition, Snapshot};
use crate::records::format::StoreFormat;
use crate::records::setting::Cluster;
use crate::{Error, keys};

/// The format of the store, and the commit that wrote it.
#[derive(Debug, Clone, Copy)]
pub(super) struct CurrentFormat {
    pub(super) format: StoreFormat,
    pub(super) version: Revision,
}

impl CurrentFormat {
    /// Returns the condition that this is still the format.
    pub(super) fn condition(&self) -> Condition {
        Condition::Version(keys::FORMAT, self.version)
    }
}

/// Fails when a release that reads up to `level` is older than the `needed` one.
pub(super) fn require_level(level: Level, needed: Level) -> Result<(), Error> {
    if level >= needed { Ok(()) } else { Err(Error::ReleaseTooOld { level, needed }) }
}

/// Reads the cluster of a store and its format; `None` when the store holds no cluster.
///
/// Refuses stores of builds before the first release, and formats of a newer release.
pub(crate) async fn read_cluster(
    snapshot: &dyn Snapshot,
    level: Level,
) -> Result<Option<(Cluster, StoreFormat, Revision)>, Error> {
    let Some(cluster) = snapshot.get(&keys::CLUSTER).await? else { return Ok(None) };
    // The format decides whether anything else can be read.
    let found = snapshot.get(&keys::FORMAT).await?.ok_or(Error::OldStore)?;
    let format = StoreFormat::decode(&keys::FORMAT, &found.value, level)?;
    if level < format.written {
        return Err(Error::ReleaseTooOld { level, needed: format.written });
    }
    let cluster = Cluster::decode(&keys::CLUSTER, &cluster.value, level)?;
    Ok(Some((cluster, format, found.version)))
}

impl Namespace {
    /// Returns the level that changes of this process are encoded for.
    pub fn written_level(&self) -> Level {
        self.current_format().format.written
    }

    /// Reads the write level again. [`Error::ReleaseTooOld`] once the cluster writes a level that
    /// this release cannot read: the process must stop.
    pub async fn refresh_level(&self) -> Result<Level, Error> {
        let snapshot = self.inner.components.engine.snapshot().await?;
        let found = snapshot.get(&keys::FORMAT).await?.ok_or(Error::OldStore)?;
        let level = self.inner.options.level;
        let format = StoreFormat::decode(&keys::FORMAT, &found.value, level)?;
        let read = CurrentFormat { format, version: found.version };
        // A level that cannot be written is not adopted: every change continues to conflict.
        require_level(level, format.written)?;
        let mut current = self.inner.format.lock().unwrap_or_else(PoisonError::into_inner);
        if read.version > current.version {
            *current = read;
        }
        Ok(current.format.written)
    }

    /// Takes or renews a lease as [`Engine::lease`](crate::engine::Engine::lease) does, at the
    /// write level that this process knows. Returns `None` also when the level has changed, and
    /// reads it again.
    pub async fn lease(
        &self,
        scope: &Scope,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<LeaseGrant>, Error> {
        scope.require(Access::Admin)?;
        let condition = self.current_format().condition();
        let engine = &self.inner.components.engine;
        let grant = engine.lease(name, holder, ttl, Some(&condition)).await?;
        if grant.is_none() {
            self.refresh_level().await?;
        }
        Ok(grant)
    }

    pub(super) fn current_format(&self) -> CurrentFormat {
        *self.inner.format.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

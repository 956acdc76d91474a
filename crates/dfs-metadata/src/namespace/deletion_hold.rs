//! Permission to delete.
//!
//! Restored or migrated metadata has a new incarnation, and may not know files that datanodes
//! hold. Nothing is deleted for such metadata until an administrator has acknowledged that what it
//! does not name is garbage.

use std::sync::atomic::Ordering;

use dfs_types::{Access, Incarnation, Scope};

use super::transaction::{Attempt, Transaction};
use super::{Namespace, TRIES};
use crate::engine::Condition;
use crate::records::setting::Gc;
use crate::{Error, keys};

/// Permission to delete, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcStatus {
    /// The incarnation of the metadata.
    pub incarnation: Incarnation,
    /// The incarnation for which deletion was acknowledged last.
    pub acknowledged: Incarnation,
}

impl GcStatus {
    /// Returns whether anything may be deleted.
    pub fn may_delete(&self) -> bool {
        self.acknowledged >= self.incarnation
    }
}

impl Namespace {
    /// Returns whether deletion is acknowledged for this incarnation of the metadata.
    pub async fn gc_status(&self, scope: &Scope) -> Result<GcStatus, Error> {
        scope.require(Access::Read)?;
        let stored = self.begin().await?.peek::<Gc>(&keys::GC).await?.ok_or_else(no_gc)?;
        let Gc { acknowledged, .. } = stored;
        Ok(GcStatus { incarnation: self.inner.identity.incarnation, acknowledged })
    }

    /// Returns whether anything may be deleted: replicas on nodes, and unlinked files. Once true,
    /// it stays so for this incarnation, and is not read again.
    pub async fn may_delete(&self) -> Result<bool, Error> {
        if self.inner.may_delete.load(Ordering::Acquire) {
            return Ok(true);
        }
        let may_delete = self.gc_status(Scope::internal()).await?.may_delete();
        self.inner.may_delete.store(may_delete, Ordering::Release);
        Ok(may_delete)
    }

    /// Permits deletion for `incarnation`, which must be the current one. Idempotent.
    pub async fn acknowledge_gc(
        &self,
        scope: &Scope,
        incarnation: Incarnation,
    ) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        if incarnation != self.inner.identity.incarnation {
            let current = self.inner.identity.incarnation;
            let what = format!(
                "the metadata is of incarnation {current}, not {incarnation}; look at what waits \
                 for deletion again"
            );
            return Err(Error::Invalid { what });
        }
        self.change_gc(None, |gc| gc.acknowledged = gc.acknowledged.max(incarnation)).await
    }

    /// Authorises the deletion of orphans that were proven to be ones before this call: commits, on
    /// the condition that `fence` still holds. Whatever could make one of them needed was committed
    /// under the same fence, so it happened before the proofs or does not happen at all.
    pub async fn authorise_deletion(
        &self,
        scope: &Scope,
        fence: Option<&Condition>,
    ) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        if !self.gc_status(scope).await?.may_delete() {
            return Err(Error::DeletionHeld(self.inner.identity.incarnation));
        }
        self.change_gc(fence, |gc| gc.batches = gc.batches.wrapping_add(1)).await
    }

    async fn change_gc(
        &self,
        fence: Option<&Condition>,
        change: impl Fn(&mut Gc),
    ) -> Result<(), Error> {
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let mut gc = tx.gc().await?;
            change(&mut gc);
            tx.put(keys::GC, &gc);
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "the state of garbage collection", tries: TRIES })
    }
}

fn no_gc() -> Error {
    Error::Damaged { key: keys::show(&keys::GC), what: "nothing" }
}

impl Transaction {
    /// Reads `s/gc`; the commit requires it to be unchanged.
    async fn gc(&mut self) -> Result<Gc, Error> {
        self.get(&keys::GC).await?.ok_or_else(no_gc)
    }
}

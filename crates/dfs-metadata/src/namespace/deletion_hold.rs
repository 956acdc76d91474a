//! Permission to delete.
//!
//! Restored or migrated metadata has a new incarnation, and may not know files that datanodes
//! hold. Nothing is deleted for such metadata until an administrator has acknowledged that what it
//! does not name is garbage. The same applies to metadata that was set back in place, which shows
//! when a datanode presents a registration that the metadata never issued, and to any metadata once
//! a datanode of the cluster joins that it does not know.
//!
//! Permission is read for every batch of deletions and never cached: another process may withdraw it
//! at any time.

use dfs_types::{Access, Incarnation, Scope};

use super::transaction::{Attempt, Transaction};
use super::{Namespace, TRIES};
use crate::engine::Condition;
use crate::records::setting::Gc;
use crate::{Error, keys};

/// Permission to delete, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcStatus {
    /// The incarnation of the metadata.
    pub incarnation: Incarnation,
    /// The incarnation for which deletion was acknowledged last.
    pub acknowledged: Incarnation,
    /// Evidence that commits of this incarnation were lost, unless it was acknowledged.
    pub hold: Option<Hold>,
}

/// Evidence that commits were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Distinguishes it from earlier and later evidence; greater than 0.
    pub number: u64,
    /// What was found.
    pub reason: String,
}

impl GcStatus {
    /// Returns whether anything may be deleted.
    pub fn may_delete(&self) -> bool {
        self.acknowledged >= self.incarnation && self.hold.is_none()
    }
}

impl Namespace {
    /// Returns whether deletion is acknowledged for this incarnation of the metadata.
    pub async fn gc_status(&self, scope: &Scope) -> Result<GcStatus, Error> {
        scope.require(Access::Read)?;
        let stored = self.begin().await?.peek::<Gc>(&keys::GC).await?.ok_or_else(no_gc)?;
        Ok(self.status_of(&stored))
    }

    fn status_of(&self, gc: &Gc) -> GcStatus {
        let hold = Hold { number: gc.holds, reason: gc.reason.clone() };
        GcStatus {
            incarnation: self.inner.identity.incarnation,
            acknowledged: gc.acknowledged,
            hold: Some(hold).filter(|hold| !hold.reason.is_empty()),
        }
    }

    /// Returns whether anything may be deleted: replicas on nodes, and unlinked files.
    pub async fn may_delete(&self) -> Result<bool, Error> {
        Ok(self.gc_status(Scope::internal()).await?.may_delete())
    }

    /// Permits deletion for `incarnation`, which must be the current one, although there is the
    /// evidence with this number; 0 for none. Idempotent.
    pub async fn acknowledge_gc(
        &self,
        scope: &Scope,
        incarnation: Incarnation,
        hold: u64,
    ) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        if incarnation != self.inner.identity.incarnation {
            let current = self.inner.identity.incarnation;
            let what = format!(
                "the metadata is of incarnation {current}, not {incarnation}; run `dfs gc status` \
                 again"
            );
            return Err(Error::Invalid { what });
        }
        self.change_gc(None, |gc| {
            if !gc.reason.is_empty() && gc.holds != hold {
                let what = format!(
                    "there is other evidence of lost commits: {}; run `dfs gc status` again",
                    gc.reason
                );
                return Err(Error::Invalid { what });
            }
            gc.acknowledged = gc.acknowledged.max(incarnation);
            gc.reason.clear();
            Ok(())
        })
        .await
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
        self.change_gc(fence, |gc| {
            if !self.status_of(gc).may_delete() {
                return Err(Error::DeletionHeld(self.inner.identity.incarnation));
            }
            gc.batches = gc.batches.wrapping_add(1);
            Ok(())
        })
        .await
    }

    async fn change_gc(
        &self,
        fence: Option<&Condition>,
        change: impl Fn(&mut Gc) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let old = tx.gc().await?;
            let mut gc = old.clone();
            change(&mut gc)?;
            if gc == old {
                return Ok(());
            }
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

impl Gc {
    /// Puts deletion on hold, unless it is already.
    fn hold(&mut self, reason: String) {
        if self.reason.is_empty() {
            self.holds += 1;
            self.reason = reason;
        }
    }
}

impl Transaction {
    /// Holds deletion, as commits were lost, in the same commit.
    pub(super) async fn hold_deletion(&mut self, reason: String) -> Result<(), Error> {
        let mut gc = self.gc().await?;
        gc.hold(reason);
        self.put(keys::GC, &gc);
        Ok(())
    }

    /// Reads `s/gc`; the commit requires it to be unchanged.
    async fn gc(&mut self) -> Result<Gc, Error> {
        self.get(&keys::GC).await?.ok_or_else(no_gc)
    }
}

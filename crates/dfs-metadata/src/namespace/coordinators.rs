//! The list of running coordinators: `s/coordinators`.

use dfs_types::{Access, CoordinatorId, Scope};

use super::format::require_level;
use super::transaction::Attempt;
use super::{Namespace, TRIES};
use crate::records::format::{Coordinator, Coordinators};
use crate::{Error, keys};

/// Maximum length of the list. One more displaces the oldest entry; a displaced coordinator that
/// still runs enters again at its next renewal.
const COORDINATORS_MAX: usize = 256;

impl Namespace {
    /// Enters a starting coordinator, or renews its entry. [`Error::ReleaseTooOld`] when it has no
    /// entry and the cluster needs a newer release: it must not run.
    pub async fn enter_coordinator(
        &self,
        scope: &Scope,
        coordinator: &Coordinator,
    ) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let entered = tx.get::<Coordinators>(&keys::COORDINATORS).await?;
            let Coordinators(mut entries) = entered.unwrap_or_default();
            if let Some(own) = entries.iter_mut().find(|entry| entry.id == coordinator.id) {
                *own = Coordinator { seen: own.seen + 1, ..coordinator.clone() };
            } else {
                // A member that is too old prevents the level from being raised, so one with an
                // entry may continue.
                require_level(coordinator.level, tx.format().format.least)?;
                let surplus = (entries.len() + 1).saturating_sub(COORDINATORS_MAX);
                entries.drain(..surplus);
                entries.push(coordinator.clone());
            }
            tx.put(keys::COORDINATORS, &Coordinators(entries));
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "the list of coordinators", tries: TRIES })
    }

    /// Removes the entry of a coordinator that stops. Idempotent.
    pub async fn leave_coordinators(&self, scope: &Scope, id: CoordinatorId) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let entered = tx.get::<Coordinators>(&keys::COORDINATORS).await?;
            let Coordinators(mut entries) = entered.unwrap_or_default();
            let before = entries.len();
            entries.retain(|entry| entry.id != id);
            if entries.len() == before {
                return Ok(());
            }
            tx.put(keys::COORDINATORS, &Coordinators(entries));
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "the list of coordinators", tries: TRIES })
    }

    /// Returns the coordinators that run or stopped silently within the last minutes.
    pub async fn coordinators(&self, scope: &Scope) -> Result<Vec<Coordinator>, Error> {
        scope.require(Access::Read)?;
        let entered = self.begin().await?.peek::<Coordinators>(&keys::COORDINATORS).await?;
        Ok(entered.unwrap_or_default().0)
    }
}

//! Disks hold nothing but what records name, once orphans have had time to be collected. Replicas of a
//! deleted chunk are no orphans before its record is removed.

use crate::sim::inspection::Durable;

/// Checks all replicas on all disks.
pub(in crate::sim) fn check(durable: &Durable) -> Result<(), String> {
    let named = durable.named();
    let is_orphan = |replica: &&_| !named.contains(*replica) && !durable.is_deleted(replica);
    match durable.held().find(is_orphan) {
        Some(replica) => Err(format!("no record names {replica:?}")),
        None => Ok(()),
    }
}

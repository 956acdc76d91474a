//! Disks hold nothing but what records name, once orphans have had time to be collected.

use crate::sim::inspection::Durable;

/// Checks all replicas on all disks.
pub(in crate::sim) fn check(durable: &Durable) -> Result<(), String> {
    let named = durable.named();
    match durable.held().find(|replica| !named.contains(replica)) {
        Some(replica) => Err(format!("no record names {replica:?}")),
        None => Ok(()),
    }
}

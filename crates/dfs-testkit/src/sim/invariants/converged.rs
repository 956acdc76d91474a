//! A healed cluster converges: every chunk has exactly as many replicas as it wants, each intact on the
//! disk that its record names, on distinct nodes, and nothing is left to delete.

use std::collections::BTreeSet;

use crate::sim::inspection::Durable;

/// Checks all chunk records.
pub(in crate::sim) fn check(durable: &Durable) -> Result<(), String> {
    for (chunk, record) in durable.records() {
        let replicas = &record.replicas;
        if record.is_tombstone() {
            if replicas.is_empty() {
                continue;
            }
            return Err(format!("chunk {chunk} is not deleted: {replicas:?}"));
        }
        let target = usize::from(record.redundancy.target());
        let nodes: BTreeSet<_> = replicas.iter().map(|it| durable.node(it)).collect();
        if nodes.len() != target || replicas.len() != target {
            let at: Vec<_> = replicas.iter().map(|it| (it, durable.node(it))).collect();
            return Err(format!("chunk {chunk} does not have {target} replicas: {at:?}"));
        }
        let is_whole = |replica| {
            dfs_metadata::namespace::Replica::is_sound(replica) && durable.is_intact(chunk, replica)
        };
        if let Some(replica) = replicas.iter().find(|replica| !is_whole(replica)) {
            return Err(format!("chunk {chunk} has a replica that is not sound: {replica:?}"));
        }
    }
    Ok(())
}

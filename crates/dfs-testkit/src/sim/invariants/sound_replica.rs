//! Every chunk has an intact replica at any moment: on a disk rather than in its record, and there
//! even if all machines lose power now.

use crate::sim::inspection::Durable;

/// Checks all chunks that something refers to.
pub(in crate::sim) fn check(durable: &Durable) -> Result<(), String> {
    for (chunk, record) in durable.live() {
        let mut named = record.replicas.iter().filter(|replica| !replica.is_doomed());
        if !named.any(|replica| durable.is_intact(chunk, replica)) {
            let replicas = &record.replicas;
            return Err(format!("no replica of chunk {chunk} is intact on its disk: {replicas:?}"));
        }
    }
    Ok(())
}

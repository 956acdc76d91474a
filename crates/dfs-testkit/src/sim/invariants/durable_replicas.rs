//! What a record names as sound is durable: a replica that is missing or damaged after a power failure
//! was damaged on its disk.

use crate::sim::inspection::Durable;

/// Checks all chunks that something refers to. `is_damaged` tells whether the disks of a host were.
pub(in crate::sim) fn check(
    durable: &Durable,
    is_damaged: impl Fn(&str) -> bool,
) -> Result<(), String> {
    for (chunk, record) in durable.live() {
        for replica in record.sound_replicas() {
            // The node of any other was removed.
            let Some(host) = durable.host(replica) else { continue };
            if !durable.is_intact(chunk, replica) && !is_damaged(host) {
                return Err(format!("{host} does not durably hold {replica:?} of chunk {chunk}"));
            }
        }
    }
    Ok(())
}

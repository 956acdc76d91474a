//! What holds in every history, one invariant a file. Each check returns what violates it.

pub(super) mod acknowledged_bytes;
pub(super) mod converged;
pub(super) mod durable_replicas;
pub(super) mod namespace;
pub(super) mod orphans;
pub(super) mod records_advance;
pub(super) mod sound_replica;
pub(super) mod work_keys;

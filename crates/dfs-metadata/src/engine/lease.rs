//! The grant of a lease, and the fence that keeps a former holder from committing.

use bytes::Bytes;
use dfs_types::{LeaseEpoch, Revision};

use crate::engine::{Condition, EngineError};

/// The lease for background work of the cluster, held by one of its coordinators.
pub const WORKERS: &str = "workers";

/// Format of the epoch record.
const EPOCH_FORMAT: u8 = 1;

/// A lease as granted to its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Greater than that of every earlier holder. A commit that must not take effect once the lease
    /// is lost carries [`LeaseGrant::fence`] as a condition.
    pub epoch: LeaseEpoch,
    /// Version of the epoch key, which a later holder changes.
    pub epoch_version: Revision,
}

impl LeaseGrant {
    /// Returns a condition that holds until another holder takes the lease.
    pub fn fence(&self, name: &str) -> Condition {
        Condition::Version(lease_epoch_key(name), self.epoch_version)
    }
}

/// Returns the key of a lease's epoch; written when the lease changes hands, never on renewal.
pub fn lease_epoch_key(name: &str) -> Bytes {
    Bytes::from(format!("s/lease/{name}/epoch"))
}

/// Returns the key of a lease's holder and renewals.
pub fn lease_renewal_key(name: &str) -> Bytes {
    Bytes::from(format!("s/lease/{name}/renewal"))
}

/// Encodes the value of a [`lease_epoch_key`].
pub fn encode_epoch(epoch: LeaseEpoch) -> Bytes {
    let mut value = vec![EPOCH_FORMAT];
    value.extend_from_slice(&epoch.0.to_be_bytes());
    Bytes::from(value)
}

/// Decodes the value of a [`lease_epoch_key`].
pub fn decode_epoch(value: &[u8]) -> Result<LeaseEpoch, EngineError> {
    match value.split_first() {
        Some((&EPOCH_FORMAT, rest)) if rest.len() == 8 => {
            Ok(LeaseEpoch(rest.iter().fold(0, |epoch, byte| epoch << 8 | u64::from(*byte))))
        }
        Some((&format, _)) if format > EPOCH_FORMAT => Err(EngineError::NewerFormat {
            found: u32::from(format),
            supported: u32::from(EPOCH_FORMAT),
        }),
        _ => Err(EngineError::Damaged("unreadable epoch of a lease".to_owned())),
    }
}

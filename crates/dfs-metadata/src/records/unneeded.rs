//! Replicas that no record needs: `g/`.

use dfs_types::Timestamp;

use crate::codec::{Reader, Record, Writer};

/// `g/<chunk><disk><part><stamp>`: the first proof that no record needs the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unneeded {
    /// When it was proven.
    pub(crate) since: Timestamp,
    /// Length of the replica.
    pub(crate) bytes: u64,
}

impl Record for Unneeded {
    fn write(&self, out: &mut Writer) {
        let Self { since, bytes } = *self;
        out.time(since);
        out.number(bytes);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { since: input.time()?, bytes: input.number()? })
    }
}

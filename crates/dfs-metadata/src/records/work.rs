//! Work keys: `w/`.

use dfs_types::Timestamp;

use crate::codec::{Reader, Record, Writer};

/// `w/d/<chunk>`: replicas of the chunk are waiting for deletion, or it is a tombstone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Deletion {
    /// When the deletion may begin; 1970 for at once.
    pub(crate) not_before: Timestamp,
}

impl Record for Deletion {
    fn write(&self, out: &mut Writer) {
        out.time(self.not_before);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { not_before: input.time()? })
    }
}

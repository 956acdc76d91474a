//! Staged uploads: `u/`.

use dfs_types::Timestamp;

use crate::codec::{Reader, Record, Writer};

/// An upload with staged chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upload {
    /// When it expires.
    pub(crate) expires: Timestamp,
    /// Being reaped; can no longer be confirmed.
    pub(crate) reaping: bool,
}

impl Record for Upload {
    fn write(&self, out: &mut Writer) {
        out.time(self.expires);
        out.bool(self.reaping);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { expires: input.time()?, reaping: input.bool()? })
    }
}

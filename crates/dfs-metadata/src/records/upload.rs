//! Staged uploads: `u/`.

use dfs_types::Timestamp;

use crate::codec::{Reader, Record, Writer};

/// An upload of which chunks lie under its inode already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upload {
    /// When it is given up for lost.
    pub(crate) expires: Timestamp,
    /// Is being reaped; can no longer be confirmed.
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

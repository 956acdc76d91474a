//! What was unlinked: `o/`.

use dfs_types::{FileKind, InodeId, Name, Timestamp};

use crate::codec::{Reader, Record, Writer};

/// Something that lost its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unlinked {
    pub(crate) kind: FileKind,
    /// Directory it was in.
    pub(crate) parent: InodeId,
    /// Its name there.
    pub(crate) name: Name,
    pub(crate) time: Timestamp,
    /// Is being taken apart; can no longer be restored.
    pub(crate) reaping: bool,
}

impl Record for Unlinked {
    fn write(&self, out: &mut Writer) {
        out.kind(self.kind);
        out.inode(self.parent);
        out.bytes(self.name.as_bytes());
        out.time(self.time);
        out.bool(self.reaping);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            kind: input.kind()?,
            parent: input.inode()?,
            name: Name::new(input.bytes()?.to_vec()).ok()?,
            time: input.time()?,
            reaping: input.bool()?,
        })
    }
}

//! Names: `d/`.

use dfs_types::{FileKind, InodeId};

use crate::codec::{Field, Reader, Record, Writer};

/// The inode that a name in a directory refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) inode: InodeId,
    pub(crate) kind: FileKind,
    /// Epoch of its volume when it was written.
    pub(crate) epoch: u32,
}

impl Entry {
    pub(crate) fn new(inode: InodeId, kind: FileKind) -> Self {
        Self { inode, kind, epoch: 0 }
    }
}

const KIND: Field = Field::new(0);
const EPOCH: Field = Field::new(1);

impl Record for Entry {
    const OPTIONAL: &'static [Field] = &[KIND, EPOCH];

    fn write(&self, out: &mut Writer) {
        let Self { inode, kind, epoch } = *self;
        out.optional(|fields| {
            fields.put(KIND, kind != FileKind::File, |out| out.kind(kind));
            fields.put(EPOCH, epoch != 0, |out| out.u32(epoch));
        });
        out.inode(inode);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let present = input.optional(Self::OPTIONAL)?;
        Some(Self {
            kind: present.read_or(input, KIND, FileKind::File, Reader::kind)?,
            epoch: present.read_or(input, EPOCH, 0, Reader::u32)?,
            inode: input.inode()?,
        })
    }
}

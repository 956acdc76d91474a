//! Unlinked inodes: `o/`.

use dfs_types::{FileKind, InodeId, Name, Timestamp};

use crate::codec::{Field, Reader, Record, Writer};

/// An inode that lost its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unlinked {
    pub(crate) kind: FileKind,
    /// Directory it was in.
    pub(crate) parent: InodeId,
    /// Name there.
    pub(crate) name: Name,
    pub(crate) time: Timestamp,
    /// Being reaped; can no longer be restored.
    pub(crate) reaping: bool,
    /// Set once the names below it were subtracted from `links` of their inodes.
    pub(crate) counted: bool,
    /// Epoch of its volume when it was written.
    pub(crate) epoch: u32,
}

impl Unlinked {
    pub(crate) fn new(kind: FileKind, parent: InodeId, name: Name, time: Timestamp) -> Self {
        Self { kind, parent, name, time, reaping: false, counted: false, epoch: 0 }
    }
}

const KIND: Field = Field::new(0);
const REAPING: Field = Field::new(1);
const COUNTED: Field = Field::new(2);
const EPOCH: Field = Field::new(3);

impl Record for Unlinked {
    const OPTIONAL: &'static [Field] = &[KIND, REAPING, COUNTED, EPOCH];

    fn write(&self, out: &mut Writer) {
        let Self { kind, parent, name, time, reaping, counted, epoch } = self;
        out.optional(|fields| {
            fields.put(KIND, *kind != FileKind::File, |out| out.kind(*kind));
            fields.flag(REAPING, *reaping);
            fields.flag(COUNTED, *counted);
            fields.put(EPOCH, *epoch != 0, |out| out.u32(*epoch));
        });
        out.inode(*parent);
        out.bytes(name.as_bytes());
        out.time(*time);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let present = input.optional(Self::OPTIONAL)?;
        Some(Self {
            kind: present.read_or(input, KIND, FileKind::File, Reader::kind)?,
            reaping: present.flag(REAPING),
            counted: present.flag(COUNTED),
            epoch: present.read_or(input, EPOCH, 0, Reader::u32)?,
            parent: input.inode()?,
            name: Name::new(input.bytes()?.to_vec()).ok()?,
            time: input.time()?,
        })
    }
}

//! Pieces of files: `x/`.

use dfs_types::ChunkId;

use crate::codec::{Field, Reader, Record, Writer};

/// A piece of a file in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) length: u64,
    pub(crate) chunk: ChunkId,
    pub(crate) chunk_offset: u64,
    /// Epoch of its volume when it was written.
    pub(crate) epoch: u32,
}

impl Extent {
    /// Returns an extent of a whole chunk of `length` bytes.
    pub(crate) fn whole(chunk: ChunkId, length: u64) -> Self {
        Self { length, chunk, chunk_offset: 0, epoch: 0 }
    }
}

const CHUNK_OFFSET: Field = Field::new(0);
const EPOCH: Field = Field::new(1);

impl Record for Extent {
    const OPTIONAL: &'static [Field] = &[CHUNK_OFFSET, EPOCH];

    fn write(&self, out: &mut Writer) {
        let Self { length, chunk, chunk_offset, epoch } = *self;
        out.optional(|fields| {
            fields.put(CHUNK_OFFSET, chunk_offset != 0, |out| out.number(chunk_offset));
            fields.put(EPOCH, epoch != 0, |out| out.u32(epoch));
        });
        out.number(length);
        out.fixed(&chunk.to_bytes());
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let present = input.optional(Self::OPTIONAL)?;
        Some(Self {
            chunk_offset: present.read_or(input, CHUNK_OFFSET, 0, Reader::number)?,
            epoch: present.read_or(input, EPOCH, 0, Reader::u32)?,
            length: input.number()?,
            chunk: input.chunk()?,
        })
    }
}

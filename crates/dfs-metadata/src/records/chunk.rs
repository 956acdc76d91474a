//! Chunks: `k/`.

use crate::codec::{Reader, Record, Writer};
use dfs_types::{ChunkSeal, DiskId, Generation, InodeId, NodeId, Receipt, Stamp};

/// What is known of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its length and checksums.
    pub seal: ChunkSeal,
    /// Who holds it.
    pub copies: Vec<Copy>,
    /// Copies wanted.
    pub wanted: u8,
    /// Raised with each change of the copies.
    pub generation: Generation,
    /// Extents that refer to it. 0 for a tombstone, whose copies are only still to be deleted.
    pub references: u32,
    /// The file whose upload brought it.
    pub inode: InodeId,
}

/// A copy of a chunk on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// The node.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// Which copy of the chunk on that node.
    pub stamp: Stamp,
    /// Known to be bad or gone.
    pub is_bad: bool,
}

impl Copy {
    /// The copy that a node vouches for.
    pub fn of(receipt: &Receipt) -> Self {
        Self { node: receipt.node, disk: receipt.disk, stamp: receipt.stamp, is_bad: false }
    }
}

impl Chunk {
    /// Whether nothing refers to it any more.
    pub fn is_tombstone(&self) -> bool {
        self.references == 0
    }

    /// Copies not known to be bad.
    pub fn good_copies(&self) -> impl Iterator<Item = &Copy> {
        self.copies.iter().filter(|copy| !copy.is_bad)
    }
}

impl Record for Chunk {
    fn write(&self, out: &mut Writer) {
        out.chunk_seal(&self.seal);
        out.list(&self.copies, |out, copy| {
            out.fixed(&copy.node.to_bytes());
            out.fixed(&copy.disk.to_bytes());
            out.number(copy.stamp.0);
            out.bool(copy.is_bad);
        });
        out.u8(self.wanted);
        out.number(self.generation.0);
        out.number(u64::from(self.references));
        out.inode(self.inode);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            seal: input.chunk_seal()?,
            copies: input.list(|input| {
                Some(Copy {
                    node: NodeId(input.wide()?),
                    disk: DiskId(input.wide()?),
                    stamp: Stamp(input.number()?),
                    is_bad: input.bool()?,
                })
            })?,
            wanted: input.u8()?,
            generation: Generation(input.number()?),
            references: input.u32()?,
            inode: input.inode()?,
        })
    }
}

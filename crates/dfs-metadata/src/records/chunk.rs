//! Chunks: `k/`.

use crate::codec::{Reader, Record, Writer};
use dfs_types::{ChunkSeal, DiskId, Generation, InodeId, NodeId, Receipt, Stamp};

/// What is known of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its length and checksums.
    pub seal: ChunkSeal,
    /// Who holds it.
    pub replicas: Vec<Replica>,
    /// Replicas wanted.
    pub wanted: u8,
    /// Raised with each change of the replicas.
    pub generation: Generation,
    /// Extents that refer to it. 0 for a tombstone, whose replicas are only still to be deleted.
    pub references: u32,
    /// The file whose upload brought it.
    pub inode: InodeId,
}

/// A replica of a chunk on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// The node.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// Which replica of the chunk on that node.
    pub stamp: Stamp,
    /// Known to be bad or gone.
    pub is_bad: bool,
}

impl Replica {
    /// The replica that a node vouches for.
    pub fn of(receipt: &Receipt) -> Self {
        Self { node: receipt.node, disk: receipt.disk, stamp: receipt.stamp, is_bad: false }
    }
}

impl Chunk {
    /// Whether nothing refers to it any more.
    pub fn is_tombstone(&self) -> bool {
        self.references == 0
    }

    /// Replicas not known to be bad.
    pub fn good_replicas(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| !replica.is_bad)
    }
}

impl Record for Chunk {
    fn write(&self, out: &mut Writer) {
        out.chunk_seal(&self.seal);
        out.list(&self.replicas, |out, replica| {
            out.fixed(&replica.node.to_bytes());
            out.fixed(&replica.disk.to_bytes());
            out.number(replica.stamp.0);
            out.bool(replica.is_bad);
        });
        out.u8(self.wanted);
        out.number(self.generation.0);
        out.number(u64::from(self.references));
        out.inode(self.inode);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            seal: input.chunk_seal()?,
            replicas: input.list(|input| {
                Some(Replica {
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

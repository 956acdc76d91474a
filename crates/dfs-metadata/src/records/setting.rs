//! Settings and counters of the cluster: `s/`.

use dfs_types::{
    ChunkId, ClientId, ClusterId, ClusterKeys, DiskNumber, Incarnation, InodeId, Replication,
    SealKey,
};

use crate::codec::{Reader, Record, Writer};

/// `s/cluster`. Its format is that of the whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) incarnation: Incarnation,
}

/// `s/floor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor(pub(crate) ChunkId);

/// `s/gc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gc {
    /// The incarnation of the metadata for which deletion was acknowledged.
    pub(crate) acknowledged: Incarnation,
    /// Batches of orphans whose deletion was authorised.
    pub(crate) batches: u64,
    /// Number of times that deletion was put on hold.
    pub(crate) holds: u64,
    /// Why it is on hold; empty unless it is.
    pub(crate) reason: String,
}

/// `s/client-floor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClientFloor(pub(crate) ClientId);

/// `s/inodes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextInode(pub(crate) InodeId);

/// `s/disks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextDisk(pub(crate) DiskNumber);

/// `s/migration`: the source, as long as the store is an unfinished copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MigrationMark {
    pub(crate) cluster: ClusterId,
    /// Incarnation of the source.
    pub(crate) incarnation: Incarnation,
}

/// A key of which only the version matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark;

impl Record for Cluster {
    fn write(&self, out: &mut Writer) {
        out.fixed(&self.id.to_bytes());
        out.number(self.incarnation.0);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { id: ClusterId(input.wide()?), incarnation: Incarnation(input.number()?) })
    }
}

/// `s/keys`.
impl Record for ClusterKeys {
    fn write(&self, out: &mut Writer) {
        out.fixed(self.root().expose());
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let root = SealKey::from_slice(&input.array::<{ SealKey::LEN }>()?)?;
        Some(Self::from_root(root))
    }
}

/// `s/replication`.
impl Record for Replication {
    fn write(&self, out: &mut Writer) {
        out.u8(self.factor);
        out.option(self.min_write.as_ref(), |out, min| out.u8(*min));
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { factor: input.u8()?, min_write: input.option(Reader::u8)? })
    }
}

impl Record for Floor {
    fn write(&self, out: &mut Writer) {
        out.fixed(&self.0.to_bytes());
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        input.chunk().map(Self)
    }
}

impl Record for Gc {
    fn write(&self, out: &mut Writer) {
        let Self { acknowledged, batches, holds, reason } = self;
        out.number(acknowledged.0);
        out.number(*batches);
        out.number(*holds);
        out.bytes(reason.as_bytes());
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            acknowledged: Incarnation(input.number()?),
            batches: input.number()?,
            holds: input.number()?,
            reason: input.text()?,
        })
    }
}

impl Record for ClientFloor {
    fn write(&self, out: &mut Writer) {
        out.fixed(&self.0.to_bytes());
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self(ClientId(input.wide()?)))
    }
}

impl Record for NextInode {
    fn write(&self, out: &mut Writer) {
        out.inode(self.0);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        input.inode().map(Self)
    }
}

impl Record for NextDisk {
    fn write(&self, out: &mut Writer) {
        out.number(u64::from(self.0.0));
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        input.u32().map(DiskNumber).map(Self)
    }
}

impl Record for MigrationMark {
    fn write(&self, out: &mut Writer) {
        out.fixed(&self.cluster.to_bytes());
        out.number(self.incarnation.0);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { cluster: ClusterId(input.wide()?), incarnation: Incarnation(input.number()?) })
    }
}

impl Record for Mark {
    fn write(&self, _out: &mut Writer) {}

    fn read(_input: &mut Reader<'_>) -> Option<Self> {
        Some(Self)
    }
}

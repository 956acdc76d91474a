//! Replication policies: `p/`, and what is left to do for changes of them.

use bytes::Bytes;

use crate::codec::{Field, Reader, Record, Writer};

/// `p/<number>`: how files and directories with this number are stored. Never changed, so that a
/// number means the same in every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Replicas wanted of each chunk.
    pub copies: u8,
    /// Durable replicas that a write needs; that of the cluster when not set.
    pub min_write: Option<u8>,
}

/// The policy of a file or directory, and the change that set it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PolicyLabel {
    /// Number of the policy; 0 for the default of the cluster.
    pub(crate) number: u32,
    /// Number of the change; a greater one is newer, and no older one replaces it.
    pub(crate) change: u64,
}

/// `s/policies`. A rename is conditioned on it, so that a change it does not know of either covers
/// the old place or the new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PolicyChanges {
    /// Number of the newest change.
    pub(crate) newest: u64,
    /// Set while `w/p/` may have keys.
    pub(crate) is_pending: bool,
}

/// `w/p/<inode>`: a directory whose entries, or a file whose chunks, may not have a label yet that
/// the inode has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PendingPolicy {
    pub(crate) label: PolicyLabel,
    /// The last name, or the last offset, that has it; empty at the beginning.
    pub(crate) after: Bytes,
}

/// `s/policy-sweep`: position of the pass over all chunk records that applies another default.
/// Present while they may not follow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PolicySweep {
    /// Key of the last record; empty at the beginning.
    pub(crate) after: Bytes,
}

const MIN_WRITE: Field = Field::new(0);

impl Record for Policy {
    const OPTIONAL: &'static [Field] = &[MIN_WRITE];

    fn write(&self, out: &mut Writer) {
        let Self { copies, min_write } = self;
        out.optional(|fields| fields.put_some(MIN_WRITE, *min_write, Writer::u8));
        out.u8(*copies);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let present = input.optional(Self::OPTIONAL)?;
        let min_write = present.read(input, MIN_WRITE, Reader::u8)?;
        Some(Self { copies: input.u8()?, min_write })
    }
}

impl Record for PolicyChanges {
    fn write(&self, out: &mut Writer) {
        out.number(self.newest);
        out.bool(self.is_pending);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { newest: input.number()?, is_pending: input.bool()? })
    }
}

impl Record for PendingPolicy {
    fn write(&self, out: &mut Writer) {
        let Self { label, after } = self;
        out.u32(label.number);
        out.number(label.change);
        out.bytes(after);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let label = PolicyLabel { number: input.u32()?, change: input.number()? };
        Some(Self { label, after: Bytes::copy_from_slice(input.bytes()?) })
    }
}

impl Record for PolicySweep {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.after);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { after: Bytes::copy_from_slice(input.bytes()?) })
    }
}

//! Write levels of the cluster: `s/format`, `s/upgrade`, `s/coordinators`.

use dfs_types::{CoordinatorId, Level};

use crate::codec::{Field, Reader, Record, Writer};

/// `s/format`: the format that is written, and the level that members need.
///
/// The two are equal except while the level is being raised. Every change of the metadata is
/// conditioned on the version of this record it was encoded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreFormat {
    /// The level that records are encoded for.
    pub(crate) written: Level,
    /// The level that a member needs to join.
    pub(crate) least: Level,
}

/// `s/upgrade`: the level that an administrator requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upgrade {
    pub(crate) wanted: Level,
    /// The members that were too old; cleared by the next request.
    pub(crate) blocked_by: Vec<String>,
}

/// `s/coordinators`: the running coordinators, oldest entry first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Coordinators(pub(crate) Vec<Coordinator>);

/// A running coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    /// Chosen by the process at its start.
    pub id: CoordinatorId,
    /// The newest write level that it reads.
    pub level: Level,
    /// Incremented at each renewal of the entry.
    pub seen: u64,
    /// Address for others, `host:port`; empty when it advertises none.
    pub address: String,
    /// Version of its release.
    pub version: String,
}

impl Record for StoreFormat {
    fn write(&self, out: &mut Writer) {
        out.number(u64::from(self.written.0));
        out.number(u64::from(self.least.0));
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { written: Level(input.u32()?), least: Level(input.u32()?) })
    }
}

impl Record for Upgrade {
    fn write(&self, out: &mut Writer) {
        out.number(u64::from(self.wanted.0));
        out.list(&self.blocked_by, |out, member| out.bytes(member.as_bytes()));
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self { wanted: Level(input.u32()?), blocked_by: input.list(Reader::text)? })
    }
}

const ADDRESS: Field = Field::new(0);

impl Record for Coordinator {
    const OPTIONAL: &'static [Field] = &[ADDRESS];

    fn write(&self, out: &mut Writer) {
        out.optional(|fields| {
            fields.put(ADDRESS, !self.address.is_empty(), |out| {
                out.bytes(self.address.as_bytes());
            });
        });
        out.fixed(&self.id.to_bytes());
        out.number(u64::from(self.level.0));
        out.number(self.seen);
        out.bytes(self.version.as_bytes());
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let optional = input.optional(Self::OPTIONAL)?;
        Some(Self {
            address: optional.read(input, ADDRESS, Reader::text)?.unwrap_or_default(),
            id: CoordinatorId(input.wide()?),
            level: Level(input.u32()?),
            seen: input.number()?,
            version: input.text()?,
        })
    }
}

impl Record for Coordinators {
    fn write(&self, out: &mut Writer) {
        out.list(&self.0, |out, coordinator| coordinator.write(out));
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        input.list(Coordinator::read).map(Self)
    }
}

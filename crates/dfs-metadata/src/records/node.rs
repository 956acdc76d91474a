//! Nodes: `n/`.

use std::time::Duration;

use dfs_types::{DiskId, DiskNumber, Level, NodeState, RegistrationNumber, Sha256, Timestamp};

use crate::codec::{Field, Reader, Record, Writer};

/// The stored state of a datanode. Heartbeats never change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Address for others, `host:port`.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Name of the machine; may be empty.
    pub host: String,
    /// Version of its release.
    pub version: String,
    /// The newest write level that its release reads.
    pub level: Level,
    /// Every disk it ever registered with, as chunk records may refer to them.
    pub disks: Vec<NodeDisk>,
    /// The sha256 of the secret of its first registration.
    pub secret: Sha256,
    /// The registration in use; 0 before the first heartbeat.
    pub confirmed: RegistrationNumber,
    /// The greatest number issued; equal to `confirmed` when that one is in use.
    pub pending: RegistrationNumber,
    /// Desired state; never Suspect, Lost or Maintenance.
    pub state: NodeState,
    /// End of the maintenance announced last, if any.
    pub maintenance_until: Option<Timestamp>,
    /// Set while its removal is being checked: its receipts do not count.
    pub is_leaving: bool,
    /// Set while an administrator does not expect it back: it is lost, and its replicas are rebuilt
    /// however many other nodes are lost.
    pub is_given_up: bool,
    /// With this registration on its disks it joins although it is not the one in use, or none was
    /// known: the disks are returning then, as no record says what they hold. `None` once a
    /// registration is used.
    pub rejoins_with: Option<RegistrationNumber>,
    /// The oldest registration under which its receipts and proofs count. Under older ones it had
    /// disks, or states of them, that it does not have any more.
    pub counts_from: RegistrationNumber,
}

/// A disk of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeDisk {
    /// Number in chunk records.
    pub number: DiskNumber,
    /// The id on the disk itself.
    pub id: DiskId,
    /// What records may say about it.
    pub state: NodeDiskState,
    /// Set while an administrator wants it emptied: it gets no new replicas.
    pub is_retiring: bool,
}

/// Relation of a disk to the records, as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeDiskState {
    /// The node had it at its last registration: receipts that name it count.
    Present,
    /// Missing at the last registration, and not given up: no receipt counts, but its replicas may.
    Absent,
    /// Given up: its replicas are being rebuilt elsewhere.
    Lost,
    /// Empty: no record names a replica on it, except replicas to be deleted.
    Clear,
}

impl NodeDisk {
    /// Creates a disk that has just registered.
    pub fn new(number: DiskNumber, id: DiskId) -> Self {
        Self { number, id, state: NodeDiskState::Present, is_retiring: false }
    }

    /// Returns whether the node may have it: it is neither missing nor empty.
    pub fn may_be_reported(&self) -> bool {
        matches!(self.state, NodeDiskState::Present | NodeDiskState::Lost)
    }

    /// Returns whether a receipt may name it.
    pub fn is_present(&self) -> bool {
        self.state == NodeDiskState::Present
    }
}

/// States of disks by their stored number.
const DISK_STATES: [NodeDiskState; 4] =
    [NodeDiskState::Present, NodeDiskState::Absent, NodeDiskState::Lost, NodeDiskState::Clear];

/// Storable states by their stored number.
const STATES: [NodeState; 5] = [
    NodeState::Joining,
    NodeState::Active,
    NodeState::Draining,
    NodeState::Drained,
    NodeState::Removed,
];

/// Desired state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIntent {
    /// The stored state; never Suspect, Lost or Maintenance.
    pub state: NodeState,
    /// Set while its removal is being checked.
    pub is_leaving: bool,
    /// Set during maintenance.
    pub in_maintenance: bool,
}

const ZONE: Field = Field::new(0);
const HOST: Field = Field::new(1);
const MAINTENANCE_UNTIL: Field = Field::new(2);
const IS_LEAVING: Field = Field::new(3);
const LEVEL: Field = Field::new(4);
const IS_GIVEN_UP: Field = Field::new(5);
const REJOINS_WITH: Field = Field::new(6);
const COUNTS_FROM: Field = Field::new(7);

impl Node {
    /// Longest maintenance, unless it is renewed.
    pub const MAINTENANCE_MAX: Duration = Duration::from_hours(24);

    /// Returns the rest of its maintenance; `None` when it is in none.
    ///
    /// An end further ahead than one can be set was set by another clock, and is ignored: needless
    /// repair wastes work, missing repair risks data.
    pub fn maintenance_left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.maintenance_until?.since(now);
        (!left.is_zero() && left <= Self::MAINTENANCE_MAX).then_some(left)
    }

    /// Returns the desired state at this moment.
    pub fn intent(&self, now: Timestamp) -> NodeIntent {
        NodeIntent {
            state: self.state,
            is_leaving: self.is_leaving,
            in_maintenance: self.maintenance_left(now).is_some(),
        }
    }

    /// Returns whether a state can be desired.
    pub(crate) fn can_be(state: NodeState) -> bool {
        STATES.contains(&state)
    }

    /// Returns whether its statements under this registration count.
    pub(crate) fn counts_under(&self, registration: RegistrationNumber) -> bool {
        let newest = self.pending.max(self.confirmed);
        self.may_hold_replicas() && (self.counts_from..=newest).contains(&registration)
    }

    /// Returns whether its receipts count: it is a member, and its removal is not being checked.
    pub(crate) fn may_hold_replicas(&self) -> bool {
        matches!(self.state, NodeState::Active | NodeState::Draining) && !self.is_leaving
    }

    /// Returns the number of a disk that the node has.
    pub(crate) fn disk_number(&self, disk: DiskId) -> Option<DiskNumber> {
        let found = self.disks.iter().find(|found| found.id == disk && found.is_present());
        found.map(|found| found.number)
    }

    /// Returns whether a number is that of this disk of the node.
    pub(crate) fn is_disk(&self, number: DiskNumber, disk: DiskId) -> bool {
        self.disks.iter().any(|found| found.number == number && found.id == disk)
    }

    /// Returns a disk that is, or was, one of this node.
    pub(crate) fn disk_mut(&mut self, disk: DiskId) -> Option<&mut NodeDisk> {
        self.disks.iter_mut().find(|found| found.id == disk)
    }

    /// Returns whether a disk is, or was, one of this node.
    pub(crate) fn has(&self, disk: DiskNumber) -> bool {
        self.disks.iter().any(|found| found.number == disk)
    }
}

impl Record for Node {
    const OPTIONAL: &'static [Field] =
        &[ZONE, HOST, MAINTENANCE_UNTIL, IS_LEAVING, LEVEL, IS_GIVEN_UP, REJOINS_WITH, COUNTS_FROM];

    fn write(&self, out: &mut Writer) {
        out.optional(|fields| {
            fields.put(ZONE, !self.zone.is_empty(), |out| out.bytes(self.zone.as_bytes()));
            fields.put(HOST, !self.host.is_empty(), |out| out.bytes(self.host.as_bytes()));
            let until = self.maintenance_until;
            fields
                .put(MAINTENANCE_UNTIL, until.is_some(), |out| out.time(until.unwrap_or_default()));
            fields.flag(IS_LEAVING, self.is_leaving);
            let Level(level) = self.level;
            fields.put(LEVEL, self.level != Level::FIRST, |out| out.number(u64::from(level)));
            fields.flag(IS_GIVEN_UP, self.is_given_up);
            let rejoins = self.rejoins_with;
            fields.put(REJOINS_WITH, rejoins.is_some(), |out| {
                out.number(rejoins.unwrap_or_default().0);
            });
            let RegistrationNumber(from) = self.counts_from;
            fields.put(COUNTS_FROM, from != 0, |out| out.number(from));
        });
        out.bytes(self.address.as_bytes());
        out.bytes(self.version.as_bytes());
        out.list(&self.disks, |out, disk| {
            out.number(u64::from(disk.number.0));
            out.fixed(&disk.id.to_bytes());
            let state = DISK_STATES.iter().position(|state| *state == disk.state);
            out.u8(state.expect("every state has a number") as u8);
            out.bool(disk.is_retiring);
        });
        out.fixed(&self.secret.0);
        out.number(self.confirmed.0);
        out.number(self.pending.0);
        let state = STATES.iter().position(|state| *state == self.state);
        out.u8(state.expect("only desired states are stored") as u8);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let optional = input.optional(Self::OPTIONAL)?;
        Some(Self {
            zone: optional.read(input, ZONE, Reader::text)?.unwrap_or_default(),
            host: optional.read(input, HOST, Reader::text)?.unwrap_or_default(),
            maintenance_until: optional.read(input, MAINTENANCE_UNTIL, Reader::time)?,
            is_leaving: optional.flag(IS_LEAVING),
            level: optional.read(input, LEVEL, Reader::u32)?.map_or(Level::FIRST, Level),
            is_given_up: optional.flag(IS_GIVEN_UP),
            rejoins_with: optional
                .read(input, REJOINS_WITH, Reader::number)?
                .map(RegistrationNumber),
            counts_from: optional
                .read(input, COUNTS_FROM, Reader::number)?
                .map_or(RegistrationNumber(0), RegistrationNumber),
            address: input.text()?,
            version: input.text()?,
            disks: input.list(|input| {
                Some(NodeDisk {
                    number: DiskNumber(input.u32()?),
                    id: input.wide().map(DiskId)?,
                    state: *DISK_STATES.get(usize::from(input.u8()?))?,
                    is_retiring: input.bool()?,
                })
            })?,
            secret: Sha256(input.array()?),
            confirmed: RegistrationNumber(input.number()?),
            pending: RegistrationNumber(input.number()?),
            state: *STATES.get(usize::from(input.u8()?))?,
        })
    }
}

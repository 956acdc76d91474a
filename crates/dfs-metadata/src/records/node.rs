//! Nodes: `n/`.

use std::time::Duration;

use dfs_types::{DiskId, NodeState, RegistrationNumber, Timestamp};

use crate::codec::{Reader, Record, Writer};

/// What is stored of a datanode. Heartbeats never touch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `host:port` under which others reach it.
    pub address: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Name of the machine; may be empty.
    pub host: String,
    /// Version of its program.
    pub version: String,
    /// Its disks when it registered.
    pub disks: Vec<DiskId>,
    /// The registration in use; 0 before the first one was taken into use.
    pub confirmed: RegistrationNumber,
    /// The one handed out last; equal to `confirmed` when it is in use.
    pub pending: RegistrationNumber,
    /// What an administrator wants it to be; never Suspect, Lost or Maintenance.
    pub state: NodeState,
    /// When the maintenance ends that was announced last, if any was.
    pub maintenance_until: Option<Timestamp>,
    /// It is being looked at whether it can go: meanwhile its receipts count for nothing.
    pub is_leaving: bool,
}

/// The states that are stored, by their stored number.
const STATES: [NodeState; 6] = [
    NodeState::Joining,
    NodeState::Active,
    NodeState::Draining,
    NodeState::Drained,
    // Was kept for a maintenance without an end, which nothing could ask for.
    NodeState::Active,
    NodeState::Removed,
];

impl Node {
    /// How long a maintenance lasts at most, unless it is renewed.
    pub const MAINTENANCE_MAX: Duration = Duration::from_hours(24);

    /// How much of its maintenance is left; `None` when it is in none.
    ///
    /// An end that lies further ahead than one can be set to was set by another clock than `now`
    /// is of. It counts for nothing: to repair for no reason is waste, not to repair is a danger.
    pub fn maintenance_left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.maintenance_until?.since(now);
        (!left.is_zero() && left <= Self::MAINTENANCE_MAX).then_some(left)
    }

    /// Whether a state is one that an administrator can wish for.
    pub(crate) fn can_be(state: NodeState) -> bool {
        STATES.contains(&state)
    }

    /// Whether its receipts count: it takes part, and nobody has verified that it is empty.
    pub(crate) fn may_hold_replicas(&self) -> bool {
        matches!(self.state, NodeState::Active | NodeState::Draining) && !self.is_leaving
    }

    /// The fields that every format begins with.
    fn read_first(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            address: input.text()?,
            zone: input.text()?,
            host: input.text()?,
            version: input.text()?,
            disks: input.list(|input| input.wide().map(DiskId))?,
            confirmed: RegistrationNumber(input.number()?),
            pending: RegistrationNumber(input.number()?),
            state: *STATES.get(usize::from(input.u8()?))?,
            maintenance_until: None,
            is_leaving: false,
        })
    }
}

impl Record for Node {
    const FORMAT: u8 = 2;

    fn write(&self, out: &mut Writer) {
        for text in [&self.address, &self.zone, &self.host, &self.version] {
            out.bytes(text.as_bytes());
        }
        out.list(&self.disks, |out, disk| out.fixed(&disk.to_bytes()));
        out.number(self.confirmed.0);
        out.number(self.pending.0);
        let state = STATES.iter().position(|state| *state == self.state);
        out.u8(state.expect("only wishes are stored") as u8);
        out.option(self.maintenance_until.as_ref(), |out, until| out.time(*until));
        out.bool(self.is_leaving);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        let node = Self::read_first(input)?;
        Some(Self {
            maintenance_until: input.option(Reader::time)?,
            is_leaving: input.bool()?,
            ..node
        })
    }

    fn read_older(format: u8, input: &mut Reader<'_>) -> Option<Self> {
        // The first format had no maintenance.
        (format == 1).then(|| Self::read_first(input)).flatten()
    }
}

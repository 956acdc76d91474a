//! Nodes: `n/`.

use dfs_types::{DiskId, NodeState, RegistrationNumber};

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
    /// What an administrator wants it to be; never Suspect or Lost.
    pub state: NodeState,
}

/// The states that are stored, by their stored number.
const STATES: [NodeState; 6] = [
    NodeState::Joining,
    NodeState::Active,
    NodeState::Draining,
    NodeState::Drained,
    NodeState::Maintenance,
    NodeState::Removed,
];

impl Node {
    /// Whether a state is one that an administrator can wish for.
    pub(crate) fn can_be(state: NodeState) -> bool {
        STATES.contains(&state)
    }

    /// Whether its receipts count: it takes part, and nobody has verified that it is empty.
    pub(crate) fn may_hold_copies(&self) -> bool {
        matches!(self.state, NodeState::Active | NodeState::Draining | NodeState::Maintenance)
    }
}

impl Record for Node {
    fn write(&self, out: &mut Writer) {
        for text in [&self.address, &self.zone, &self.host, &self.version] {
            out.bytes(text.as_bytes());
        }
        out.list(&self.disks, |out, disk| out.fixed(&disk.to_bytes()));
        out.number(self.confirmed.0);
        out.number(self.pending.0);
        let state = STATES.iter().position(|state| *state == self.state);
        out.u8(state.expect("only wishes are stored") as u8);
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            address: input.text()?,
            zone: input.text()?,
            host: input.text()?,
            version: input.text()?,
            disks: input.list(|input| input.wide().map(DiskId))?,
            confirmed: RegistrationNumber(input.number()?),
            pending: RegistrationNumber(input.number()?),
            state: *STATES.get(usize::from(input.u8()?))?,
        })
    }
}

//! Conversions of domain types to wire messages.

use bytes::Bytes;
use dfs_types::{
    Attributes, Change, DiskScrub, DiskState, FileKind, FileTime, Frame, NodeState, Precondition,
    ReadProof, Receipt, Redundancy, ReplicaCondition, ReplicaHealth, ReplicaRef, ReplicaVerdict,
    Slot, Target,
};

use crate::v1;
use crate::wire::WireId;

impl From<FileKind> for v1::FileKind {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::File => Self::File,
            FileKind::Directory => Self::Directory,
            FileKind::Symlink => Self::Symlink,
            FileKind::Fifo => Self::Fifo,
            FileKind::Socket => Self::Socket,
            FileKind::CharacterDevice => Self::CharacterDevice,
            FileKind::BlockDevice => Self::BlockDevice,
        }
    }
}

impl From<NodeState> for v1::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Joining => Self::Joining,
            NodeState::Active => Self::Active,
            NodeState::Suspect => Self::Suspect,
            NodeState::Lost => Self::Lost,
            NodeState::Draining => Self::Draining,
            NodeState::Drained => Self::Drained,
            NodeState::Maintenance => Self::Maintenance,
            NodeState::Removed => Self::Removed,
        }
    }
}

impl From<DiskScrub> for v1::DiskScrub {
    fn from(scrub: DiskScrub) -> Self {
        let DiskScrub { last, replicas, errors, left_replicas, left_bytes, every } = scrub;
        Self {
            last_end_ms: last.map(|last| last.end.millis()),
            last_bytes: last.map_or(0, |last| last.bytes),
            last_errors: last.map_or(0, |last| last.errors),
            replicas,
            errors,
            left_replicas,
            left_bytes,
            every_ms: every.map_or(0, |every| every.as_millis() as u64),
        }
    }
}

impl From<DiskState> for v1::DiskState {
    fn from(state: DiskState) -> Self {
        match state {
            DiskState::Healthy => Self::Healthy,
            DiskState::Slow => Self::Slow,
            DiskState::Hung => Self::Hung,
            DiskState::Failed => Self::Failed,
            DiskState::Returning => Self::Returning,
            DiskState::Retiring => Self::Retiring,
            DiskState::Missing => Self::Missing,
            DiskState::Starting => Self::Starting,
        }
    }
}

impl From<ReplicaHealth> for v1::ReplicaHealth {
    fn from(health: ReplicaHealth) -> Self {
        match health {
            ReplicaHealth::Good => Self::Good,
            ReplicaHealth::Leaving => Self::Leaving,
            ReplicaHealth::Suspect => Self::Suspect,
            ReplicaHealth::Bad => Self::Bad,
            ReplicaHealth::Lost => Self::Lost,
            ReplicaHealth::Gone => Self::Gone,
            ReplicaHealth::Doomed => Self::Doomed,
        }
    }
}

impl From<FileTime> for v1::FileTime {
    fn from(time: FileTime) -> Self {
        Self { seconds: time.seconds(), nanos: time.nanos() }
    }
}

impl From<Attributes> for v1::Attributes {
    fn from(attributes: Attributes) -> Self {
        let Attributes { mode, uid, gid, mtime } = attributes;
        Self { mode, uid, gid, mtime: Some(mtime.into()) }
    }
}

impl v1::Target {
    /// Returns a target of these bytes, without validating the path.
    pub fn of_path(path: impl Into<Bytes>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}

impl From<Target> for v1::Target {
    fn from(target: Target) -> Self {
        let none = Self::default();
        match target {
            Target::Path(path) => Self { path: path.to_bytes(), ..none },
            Target::Inode(inode) => Self { inode: inode.0, ..none },
            Target::Child { parent, name } => {
                let child = v1::Child { parent: parent.0, name: name.to_bytes() };
                Self { child: Some(child), ..none }
            }
        }
    }
}

impl From<Change> for v1::Change {
    fn from(change: Change) -> Self {
        let Change { incarnation, revision } = change;
        Self { incarnation: incarnation.0, revision: revision.0 }
    }
}

impl From<Precondition> for v1::Precondition {
    fn from(precondition: Precondition) -> Self {
        match precondition {
            Precondition::Absent => Self { absent: true, ..Self::default() },
            Precondition::Inode { inode, change } => {
                Self { absent: false, inode: inode.0, change: change.map(Into::into) }
            }
        }
    }
}

impl From<Slot> for v1::Slot {
    fn from(slot: Slot) -> Self {
        let Slot { client, slot, sequence } = slot;
        Self { client_id: client.to_wire(), slot, sequence }
    }
}

impl From<Receipt> for v1::Receipt {
    fn from(receipt: Receipt) -> Self {
        let Receipt { chunk, part, length, crc32c, node, disk, stamp, registration, seal } =
            receipt;
        Self {
            chunk_id: chunk.to_wire(),
            length,
            crc32c: crc32c.0,
            node_id: node.to_wire(),
            disk_id: disk.to_wire(),
            stamp: stamp.0,
            registration: registration.0,
            seal: Bytes::copy_from_slice(&seal.0),
            part: u32::from(part.0),
        }
    }
}

impl From<Redundancy> for v1::Redundancy {
    fn from(redundancy: Redundancy) -> Self {
        use v1::redundancy::Kind;
        let kind = match redundancy {
            Redundancy::Replicated { copies } => {
                Kind::Replicated(v1::Replicated { copies: copies.into() })
            }
            Redundancy::Erasure { codec, k, m, blocks, crcs } => Kind::Erasure(v1::Erasure {
                codec: codec.into(),
                k: k.into(),
                m: m.into(),
                blocks,
                crcs: crcs.into_iter().map(|crc| crc.0).collect(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<ReplicaRef> for v1::ReplicaRef {
    fn from(replica: ReplicaRef) -> Self {
        let ReplicaRef { chunk, part, disk, stamp } = replica;
        Self {
            chunk_id: chunk.to_wire(),
            part: u32::from(part.0),
            disk_id: disk.to_wire(),
            stamp: stamp.0,
        }
    }
}

impl From<ReplicaVerdict> for v1::ReplicaVerdict {
    fn from(verdict: ReplicaVerdict) -> Self {
        let ReplicaVerdict { replica, number, condition, block } = verdict;
        let condition = v1::ReplicaCondition::from(condition).into();
        Self { replica: Some(replica.into()), number, condition, block }
    }
}

impl From<ReplicaCondition> for v1::ReplicaCondition {
    fn from(condition: ReplicaCondition) -> Self {
        match condition {
            ReplicaCondition::Sound => Self::Sound,
            ReplicaCondition::Bad => Self::Bad,
            ReplicaCondition::Gone => Self::Gone,
        }
    }
}

impl From<ReadProof> for v1::ReadProof {
    fn from(proof: ReadProof) -> Self {
        let ReadProof { replica, generation, node, registration, seal } = proof;
        Self {
            replica: Some(replica.into()),
            generation: generation.0,
            node_id: node.to_wire(),
            registration: registration.0,
            seal: Bytes::copy_from_slice(&seal.0),
        }
    }
}

impl From<Frame> for v1::ChunkFrame {
    fn from(frame: Frame) -> Self {
        let Frame { offset, data, crcs, seal } = frame;
        Self {
            offset,
            data,
            block_crc32c: crcs.into_iter().map(|crc| crc.0).collect(),
            is_final: seal.is_some(),
            total_length: seal.map_or(0, |seal| seal.length),
            total_crc32c: seal.map_or(0, |seal| seal.crc32c.0),
            total_sha256: seal
                .map_or_else(Bytes::new, |seal| Bytes::copy_from_slice(&seal.sha256.0)),
            origin: None,
        }
    }
}

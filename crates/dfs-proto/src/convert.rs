//! Domain types as they go out.

use bytes::Bytes;
use dfs_types::{Attributes, FileKind, FileTime, Frame, NodeState, Receipt, Slot};

use crate::v1;
use crate::wire::WireId;

impl From<FileKind> for v1::FileKind {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::File => Self::File,
            FileKind::Directory => Self::Directory,
            FileKind::Symlink => Self::Symlink,
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

impl From<Slot> for v1::Slot {
    fn from(slot: Slot) -> Self {
        let Slot { client, slot, sequence } = slot;
        Self { client_id: client.to_wire(), slot, sequence }
    }
}

impl From<Receipt> for v1::Receipt {
    fn from(receipt: Receipt) -> Self {
        let Receipt { chunk, length, crc32c, node, disk, stamp, registration, seal } = receipt;
        Self {
            chunk_id: chunk.to_wire(),
            length,
            crc32c: crc32c.0,
            node_id: node.to_wire(),
            disk_id: disk.to_wire(),
            stamp: stamp.0,
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
        }
    }
}

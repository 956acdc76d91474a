//! The plan of an upload, sealed so that any coordinator can honour it and nobody can alter it.

use bytes::Bytes;
use dfs_types::{ChunkId, ClusterId, Incarnation, InodeId, Name, NodeId, SealKey, Timestamp};

use super::{Namespace, PlannedChunk};
use crate::Error;
use crate::codec::{Reader, Record, Writer};

/// Purpose of the seal of a token.
const PURPOSE: &str = "plan";
/// Bytes of the seal at the end of a token.
const SEAL_LEN: usize = SealKey::LEN;

/// Content of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) cluster: ClusterId,
    pub(super) incarnation: Incarnation,
    /// Inode of the new file.
    pub(super) inode: InodeId,
    /// Directory to link it in, wherever that directory is by then.
    pub(super) parent: InodeId,
    pub(super) name: Name,
    pub(super) size: Option<u64>,
    pub(super) chunk_size: u64,
    /// The policy of the file when it was planned.
    pub(super) policy: u32,
    /// Set if the writer asked for that policy; otherwise the file has that of its directory.
    pub(super) is_explicit: bool,
    pub(super) replicas: u8,
    pub(super) min_replicas: u8,
    pub(super) expires: Timestamp,
    pub(super) client_host: String,
    pub(super) client_zone: String,
    pub(super) chunks: Vec<PlannedChunk>,
}

impl Plan {
    /// Returns the chunk with that id.
    pub(super) fn chunk(&self, id: ChunkId) -> Option<&PlannedChunk> {
        self.chunks.iter().find(|planned| planned.chunk == id)
    }
}

impl Namespace {
    pub(super) fn seal_plan(&self, plan: &Plan) -> Bytes {
        let mut token = plan.encode(self.written_level());
        let seal = self.inner.keys.plan().seal(PURPOSE, &token);
        token.extend_from_slice(&seal.0);
        token.into()
    }

    /// Opens a token sealed by this cluster, which may have expired.
    pub(super) fn open_plan(&self, token: &[u8]) -> Result<Plan, Error> {
        let split = token.len().checked_sub(SEAL_LEN).ok_or(Error::ForgedToken)?;
        let (body, seal) = token.split_at(split);
        if !self.inner.keys.plan().verify(PURPOSE, body, seal) {
            return Err(Error::ForgedToken);
        }
        let plan = Plan::decode(b"token", body, self.inner.options.level)?;
        let ours = self.inner.identity;
        if plan.cluster != ours.cluster {
            return Err(Error::ForeignToken(plan.cluster));
        }
        if plan.incarnation != ours.incarnation {
            return Err(Error::UploadExpired { name: plan.name });
        }
        Ok(plan)
    }
}

impl Record for Plan {
    fn write(&self, out: &mut Writer) {
        out.fixed(&self.cluster.to_bytes());
        out.number(self.incarnation.0);
        out.inode(self.inode);
        out.inode(self.parent);
        out.bytes(self.name.as_bytes());
        out.option(self.size.as_ref(), |out, size| out.number(*size));
        out.number(self.chunk_size);
        out.u32(self.policy);
        out.bool(self.is_explicit);
        out.u8(self.replicas);
        out.u8(self.min_replicas);
        out.time(self.expires);
        out.bytes(self.client_host.as_bytes());
        out.bytes(self.client_zone.as_bytes());
        out.list(&self.chunks, |out, chunk| {
            out.fixed(&chunk.chunk.to_bytes());
            out.number(chunk.file_offset);
            out.number(chunk.max_length);
            out.list(&chunk.nodes, |out, node| out.fixed(&node.to_bytes()));
        });
    }

    fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            cluster: ClusterId(input.wide()?),
            incarnation: Incarnation(input.number()?),
            inode: input.inode()?,
            parent: input.inode()?,
            name: Name::new(input.bytes()?.to_vec()).ok()?,
            size: input.option(Reader::number)?,
            chunk_size: input.number()?,
            policy: input.u32()?,
            is_explicit: input.bool()?,
            replicas: input.u8()?,
            min_replicas: input.u8()?,
            expires: input.time()?,
            client_host: input.text()?,
            client_zone: input.text()?,
            chunks: input.list(|input| {
                Some(PlannedChunk {
                    chunk: input.chunk()?,
                    file_offset: input.number()?,
                    max_length: input.number()?,
                    nodes: input.list(|input| input.wide().map(NodeId))?,
                })
            })?,
        })
    }
}

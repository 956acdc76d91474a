//! Staging the chunks of an upload that has more of them than one commit can hold.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, InodeId, NodeId, Scope, Timestamp};

use super::token::Plan;
use super::{Namespace, PlannedChunk, WrittenChunk};
use crate::namespace::TRIES;
use crate::namespace::chunk_records::record_keys;
use crate::namespace::transaction::{Attempt, Transaction};
use crate::records::extent::Extent;
use crate::records::inode::Inode;
use crate::records::upload::Upload;
use crate::{Error, keys};

/// Keys per commit for chunks; the rest is left to the commit's main change.
const KEYS_MAX: usize = 80;
/// Maximum number of keys per registered chunk, without those of nodes.
pub(super) const KEYS_PER_CHUNK: usize = 3;
/// Lifetime of a staged upload after its last renewal.
const STAGING_LIFETIME: Duration = Duration::from_hours(1);
/// Maximum number of tokens per call.
const TOKENS_MAX: usize = 64;

/// The tokens of one upload.
pub(super) struct Plans(Vec<Plan>);

impl Plans {
    /// Returns a plan with what they have in common.
    pub(super) fn first(&self) -> &Plan {
        &self.0[0]
    }

    /// Returns the planned chunk of that id.
    pub(super) fn chunk(&self, id: ChunkId) -> Option<&PlannedChunk> {
        self.0.iter().find_map(|plan| plan.chunk(id))
    }

    fn expire(&self) -> Timestamp {
        self.0.iter().map(|plan| plan.expires).max().unwrap_or_default()
    }

    /// Returns whether all of them have expired.
    pub(super) fn are_expired(&self, now: Timestamp) -> bool {
        self.0.iter().all(|plan| plan.is_expired(now))
    }

    pub(super) fn expired(&self) -> Error {
        Error::UploadExpired { name: self.first().name.clone() }
    }
}

impl Namespace {
    pub(super) fn open_plans(&self, tokens: &[Bytes]) -> Result<Plans, Error> {
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            let count = tokens.len();
            let what = format!("an upload must have 1 to {TOKENS_MAX} tokens, not {count}");
            return Err(Error::Invalid { what });
        }
        let plans: Vec<Plan> =
            tokens.iter().map(|token| self.open_plan(token)).collect::<Result<_, _>>()?;
        if plans.iter().any(|plan| plan.inode != plans[0].inode) {
            return Err(Error::Invalid { what: "the tokens belong to several uploads".to_owned() });
        }
        Ok(Plans(plans))
    }

    /// Stages written chunks, in as many commits as needed, and extends the upload. Idempotent.
    /// Returns the new expiry.
    pub async fn stage(
        &self,
        scope: &Scope,
        tokens: &[Bytes],
        chunks: &[WrittenChunk],
    ) -> Result<Timestamp, Error> {
        scope.require(Access::Write)?;
        let plans = self.open_plans(tokens)?;
        self.check_written(&plans, chunks)?;
        self.note_floor(self.stage_checked(&plans, chunks).await).await
    }

    pub(super) async fn stage_checked(
        &self,
        plans: &Plans,
        chunks: &[WrittenChunk],
    ) -> Result<Timestamp, Error> {
        let mut left = chunks;
        loop {
            let (staged, expires) = self.stage_some(plans, left).await?;
            left = left.get(staged..).unwrap_or_default();
            if left.is_empty() {
                return Ok(expires);
            }
        }
    }

    /// Stages as many chunks as one commit can hold. Returns how many.
    async fn stage_some(
        &self,
        plans: &Plans,
        chunks: &[WrittenChunk],
    ) -> Result<(usize, Timestamp), Error> {
        let inode = plans.first().inode;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let now = self.expiry_now();
            let mut tx = self.begin().await?;
            let few = chunks.iter().take(KEYS_MAX / KEYS_PER_CHUNK);
            let extents = few.clone().map(|written| keys::extent(inode, written.file_offset));
            tx.read_ahead(keys_of_chunks(plans.first(), few).chain(extents).collect()).await?;
            if tx.get::<Inode>(&keys::inode(inode)).await?.is_some() {
                // Confirmed meanwhile; a caller that repeats a stage also repeats the confirm.
                return Ok((chunks.len(), plans.expire()));
            }
            let key = keys::upload(inode);
            match tx.get::<Upload>(&key).await? {
                Some(upload) if upload.reaping || upload.expires <= now => {
                    return Err(plans.expired());
                }
                None if plans.are_expired(now) => return Err(plans.expired()),
                _ => {}
            }
            let expires = self.now().plus(STAGING_LIFETIME);
            tx.put(key, &Upload { expires, reaping: false });
            let policy = plans.first().policy;
            let default = tx.expect_default().await?;
            let policy = (policy, tx.replication_under(policy, default).await?);
            let mut staged = 0;
            for written in chunks {
                if staged > 0 && tx.keys() + KEYS_PER_CHUNK + written.receipts.len() > KEYS_MAX {
                    break;
                }
                if tx.register_chunk(plans.first(), policy, written).await? {
                    tx.stage_extent(inode, written).await?;
                }
                staged += 1;
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok((staged, expires));
            }
        }
        Err(Error::Conflict { what: "the upload to stage", tries: TRIES })
    }
}

/// Returns the keys that registering chunks of an upload reads.
pub(super) fn keys_of_chunks<'a>(
    plan: &Plan,
    chunks: impl Iterator<Item = &'a WrittenChunk> + Clone,
) -> impl Iterator<Item = Bytes> {
    let own = [keys::inode(plan.inode), keys::upload(plan.inode), keys::REPLICATION, keys::FLOOR];
    let nodes: BTreeSet<NodeId> =
        chunks.clone().flat_map(|written| &written.receipts).map(|receipt| receipt.node).collect();
    let nodes = nodes.into_iter().map(keys::node);
    let ids: Vec<ChunkId> = chunks.map(|written| written.chunk).collect();
    own.into_iter().chain(nodes).chain(record_keys(&ids))
}

pub(super) fn extent_of(written: &WrittenChunk) -> Extent {
    Extent::whole(written.chunk, written.seal.length)
}

impl Transaction {
    /// Records the extent of a chunk in a staged file. Refuses a second chunk at the same offset,
    /// as the first would never be reaped. The caller changes the upload in the same conditional
    /// commit, so that nothing comes between.
    pub(super) async fn stage_extent(
        &mut self,
        inode: InodeId,
        written: &WrittenChunk,
    ) -> Result<(), Error> {
        let key = keys::extent(inode, written.file_offset);
        if self.peek::<Extent>(&key).await?.is_some() {
            let what = "another chunk is staged at its offset".to_owned();
            return Err(Error::BadChunk { chunk: written.chunk, what });
        }
        self.put(key, &extent_of(written));
        Ok(())
    }
}

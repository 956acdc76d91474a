//! Registering chunks: verifying them, and staging more than one commit can hold.

use std::collections::BTreeSet;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, Generation, InodeId, Part, Redundancy, Scope, Timestamp};

use super::token::Plan;
use super::{Namespace, WrittenChunk};
use crate::namespace::transaction::{Attempt, Transaction};
use crate::namespace::{Chunk, Replica, TRIES};
use crate::records::extent::Extent;
use crate::records::inode::Inode;
use crate::records::upload::Upload;
use crate::{Error, keys};

/// Keys per commit for chunks; the rest is left to the commit's main change.
const KEYS_MAX: usize = 80;
/// Tokens per call.
const TOKENS_MAX: usize = 64;

/// The tokens of one upload.
pub(super) struct Plans(Vec<Plan>);

impl Plans {
    /// Returns a plan with what they have in common.
    pub(super) fn first(&self) -> &Plan {
        &self.0[0]
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
            let what = format!("an upload has 1 to {TOKENS_MAX} tokens, not {}", tokens.len());
            return Err(Error::Invalid { what });
        }
        let plans: Vec<Plan> =
            tokens.iter().map(|token| self.open_plan(token)).collect::<Result<_, _>>()?;
        if plans.iter().any(|plan| plan.inode != plans[0].inode) {
            return Err(Error::Invalid { what: "the tokens belong to several uploads".to_owned() });
        }
        Ok(Plans(plans))
    }

    /// Refuses chunks that were not planned or not proven.
    pub(super) fn check_written(
        &self,
        plans: &Plans,
        chunks: &[WrittenChunk],
    ) -> Result<(), Error> {
        let mut ids = BTreeSet::new();
        for written in chunks {
            let id = written.chunk;
            let bad = |what: String| Err(Error::BadChunk { chunk: id, what });
            if !ids.insert(id) {
                return bad("given twice".to_owned());
            }
            let Some(planned) = plans.0.iter().find_map(|plan| plan.chunk(id)) else {
                return bad("not in the plan of this upload".to_owned());
            };
            if written.file_offset != planned.file_offset {
                let (at, wanted) = (written.file_offset, planned.file_offset);
                return bad(format!("planned at offset {wanted}, not {at}"));
            }
            if !(1..=planned.max_length).contains(&written.seal.length) {
                let (len, max) = (written.seal.length, planned.max_length);
                return bad(format!("planned with 1 to {max} bytes, not {len}"));
            }
            let mut nodes = BTreeSet::new();
            for receipt in &written.receipts {
                self.check_receipt(id, receipt)?;
                let node = receipt.node;
                let lie = |what| Err(Error::BadReceipt { chunk: id, node, what });
                if receipt.part != Part::WHOLE {
                    return lie("uploads write whole chunks");
                }
                if receipt.length != written.seal.length || receipt.crc32c != written.seal.crc32c {
                    return lie("receipt of other bytes");
                }
                if !planned.nodes.contains(&node) {
                    return lie("the chunk was not planned for this node");
                }
                if !nodes.insert(node) {
                    return lie("given twice");
                }
            }
            let wanted = usize::from(plans.first().min_replicas);
            if nodes.len() < wanted {
                return bad(format!("{} receipts, at least {wanted} are needed", nodes.len()));
            }
        }
        Ok(())
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
            let now = self.now();
            let mut tx = self.begin().await?;
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
            let expires = now.plus(self.inner.options.staging_lifetime);
            tx.put(key, &Upload { expires, reaping: false });
            let mut staged = 0;
            for written in chunks {
                if staged > 0 && tx.keys() + 3 + written.receipts.len() > KEYS_MAX {
                    break;
                }
                if tx.register_chunk(plans.first(), written).await? {
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

    /// Creates the record of a chunk. Returns `false` when this upload registered it already;
    /// refuses a chunk that was abandoned since, or may have been collected.
    pub(super) async fn register_chunk(
        &mut self,
        plan: &Plan,
        written: &WrittenChunk,
    ) -> Result<bool, Error> {
        let id: ChunkId = written.chunk;
        let inode: InodeId = plan.inode;
        if let Some(known) = self.chunk(id).await? {
            return match known {
                _ if known.is_tombstone() => Err(Error::DeletedSince { name: plan.name.clone() }),
                _ if known.inode == inode && known.seal == written.seal => Ok(false),
                _ => Err(Error::ConfirmedOtherwise { name: plan.name.clone() }),
            };
        }
        if id < self.floor().await? {
            return Err(Error::BelowFloor(id));
        }
        let mut replicas = Vec::with_capacity(written.receipts.len());
        for receipt in &written.receipts {
            if let Some((_, disk)) = self.holder(receipt).await? {
                replicas.push(Replica::new(disk, Part::WHOLE, receipt.stamp));
            }
        }
        let wanted = usize::from(plan.min_replicas);
        if replicas.len() < wanted {
            return Err(Error::ReplicasGone { chunk: id, have: replicas.len(), wanted });
        }
        let chunk = Chunk {
            seal: written.seal,
            redundancy: Redundancy::Replicated { copies: plan.replicas },
            policy: 0,
            replicas,
            generation: Generation::FIRST,
            references: 1,
            inode,
        };
        self.put_chunk(id, None, Some(&chunk));
        Ok(true)
    }
}

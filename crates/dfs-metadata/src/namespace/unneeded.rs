//! Replicas that were proven once to be needed by no record. Kept until they are proven again, long
//! enough after, and deleted; or until they are needed, or gone.
//!
//! The proof is a statement about the records, so it is stored with them: it outlives the holder of
//! the lease, and metadata that is restored knows only proofs of its own past.

use dfs_types::{Access, ChunkId, Scope, Timestamp};

use super::transaction::Attempt;
use super::{Namespace, ReplicaId, TRIES};
use crate::engine::{COMMIT_KEYS_MAX, Condition};
use crate::records::unneeded::Unneeded;
use crate::{Error, keys};

/// Changes per commit, which has other keys too.
const CHANGES_MAX: usize = COMMIT_KEYS_MAX - 10;

/// A replica that no record needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnneededReplica {
    /// The chunk.
    pub chunk: ChunkId,
    /// The replica.
    pub replica: ReplicaId,
    /// When it was first proven to be unneeded.
    pub since: Timestamp,
    /// Its length.
    pub bytes: u64,
}

/// A page of unneeded replicas in chunk order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnneededPage {
    /// The replicas.
    pub replicas: Vec<UnneededReplica>,
    /// Start of the next page; `None` after the last.
    pub next: Option<UnneededReplica>,
}

impl UnneededReplica {
    fn key(&self) -> bytes::Bytes {
        let ReplicaId { disk, part, stamp } = self.replica;
        keys::unneeded(self.chunk, disk, part, stamp)
    }

    fn of(key: &[u8], record: Unneeded) -> Option<Self> {
        let (chunk, disk, part, stamp) = keys::unneeded_parts(key)?;
        let Unneeded { since, bytes } = record;
        Some(Self { chunk, replica: ReplicaId { disk, part, stamp }, since, bytes })
    }
}

impl Namespace {
    /// Returns unneeded replicas after `after`: at most `limit`, and at most
    /// [`Self::PAGE_LEN_MAX`]. Unreadable records are skipped.
    pub async fn unneeded(
        &self,
        scope: &Scope,
        after: Option<&UnneededReplica>,
        limit: usize,
    ) -> Result<UnneededPage, Error> {
        scope.require(Access::Admin)?;
        let after = after.map(UnneededReplica::key);
        self.unneeded_page(after.as_deref().unwrap_or_default(), limit).await
    }

    /// Returns the unneeded replicas of chunks from `from` up to but not including `to`; at most
    /// `limit`.
    pub async fn unneeded_in(
        &self,
        scope: &Scope,
        (from, to): (ChunkId, Option<ChunkId>),
        limit: usize,
    ) -> Result<Vec<UnneededReplica>, Error> {
        scope.require(Access::Admin)?;
        let is_within = |it: &UnneededReplica| to.is_none_or(|to| it.chunk < to);
        // Less than every key of the chunk, and greater than those of the one before.
        let mut after = bytes::Bytes::from([keys::UNNEEDED, &from.to_bytes()].concat());
        let mut found = Vec::new();
        loop {
            let page = self.unneeded_page(&after, Self::PAGE_LEN_MAX).await?;
            let is_past = page.replicas.last().is_some_and(|last| !is_within(last));
            found.extend(page.replicas.into_iter().filter(is_within));
            match page.next {
                Some(next) if !is_past && found.len() < limit => after = next.key(),
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn unneeded_page(&self, after: &[u8], limit: usize) -> Result<UnneededPage, Error> {
        let limit = limit.clamp(1, Self::PAGE_LEN_MAX);
        let tx = self.begin().await?;
        let found = tx.try_range::<Unneeded>(keys::UNNEEDED, after, limit).await?;
        let is_full = found.len() == limit;
        let last = found.last().map(|(key, _)| key.clone());
        let replicas: Vec<_> = found
            .into_iter()
            .filter_map(|(key, record)| UnneededReplica::of(&key, record.ok()?))
            .collect();
        let position = |key: bytes::Bytes| {
            UnneededReplica::of(&key, Unneeded { since: Timestamp::default(), bytes: 0 })
        };
        Ok(UnneededPage { replicas, next: last.filter(|_| is_full).and_then(position) })
    }

    /// Records replicas as unneeded and forgets others, in as many commits as it takes.
    pub async fn change_unneeded(
        &self,
        scope: &Scope,
        add: &[UnneededReplica],
        forget: &[UnneededReplica],
        fence: Option<&Condition>,
    ) -> Result<(), Error> {
        scope.require(Access::Admin)?;
        let changes = add.iter().map(|it| (it, true)).chain(forget.iter().map(|it| (it, false)));
        let changes: Vec<_> = changes.collect();
        for changes in changes.chunks(CHANGES_MAX) {
            self.commit_unneeded(changes, fence).await?;
        }
        Ok(())
    }

    async fn commit_unneeded(
        &self,
        changes: &[(&UnneededReplica, bool)],
        fence: Option<&Condition>,
    ) -> Result<(), Error> {
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            for (replica, is_unneeded) in changes {
                if *is_unneeded {
                    let UnneededReplica { since, bytes, .. } = **replica;
                    tx.put(replica.key(), &Unneeded { since, bytes });
                } else {
                    tx.delete(replica.key());
                }
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(());
            }
        }
        Err(Error::Conflict { what: "the replicas that no record needs", tries: TRIES })
    }
}

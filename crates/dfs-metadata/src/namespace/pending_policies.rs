//! Applying changed policies to files that exist.
//!
//! Below a directory, a walk gives each entry the label of the directory. Its frontier is stored: a
//! key under `w/p/` for each directory that was not walked to its end, and for each file whose chunks
//! were not. A step handles a part of one of them in one commit, so that a new holder of the worker
//! lease continues where the last one was. Whatever is created meanwhile inherits the label of its
//! directory: it has the new one, or is found by the walk.
//!
//! Another default is applied by a pass over all chunk records. Uploads commit on the condition that
//! the default is still the one they used, so the pass misses none.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_types::{Access, ChunkId, FileKind, InodeId, Redundancy, Replication, Revision, Scope};

use super::policies::Policies;
use super::transaction::{Attempt, Transaction};
use super::{Chunk, Namespace, ScanCursor, TRIES};
use crate::engine::Condition;
use crate::records::entry::Entry;
use crate::records::extent::Extent;
use crate::records::inode::{Content, File, Inode};
use crate::records::policy::{PendingPolicy, PolicyChanges, PolicySweep};
use crate::{Error, keys};

/// Entries of a directory, or extents of a file, read at a time.
const STEP: usize = 40;
/// Keys of a commit from which on nothing is added: an entry takes up to four.
const KEYS_MAX: usize = 90;
/// Chunk records of a file changed in one commit, with two keys each.
const CHUNKS_PER_COMMIT: usize = 40;
/// Chunk records of any files changed in one commit, with two keys each and that of the inode.
const CHUNKS_OF_FILES_PER_COMMIT: usize = 30;

/// Result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyStep {
    /// Part of a change was applied.
    Applied {
        /// Files and directories that got another policy.
        inodes: usize,
        /// Chunks that got another redundancy.
        chunks: usize,
    },
    /// Every change was applied.
    Idle,
}

impl Namespace {
    /// Applies a bounded part of the changes of policies to existing files. Idempotent.
    pub async fn step_policies(
        &self,
        scope: &Scope,
        fence: Option<&Condition>,
    ) -> Result<PolicyStep, Error> {
        scope.require(Access::Admin)?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let changes = tx.peek::<PolicyChanges>(&keys::POLICY_CHANGES).await?;
            let (mut inodes, mut chunks) = (0, 0);
            if changes.unwrap_or_default().is_pending {
                match tx.range_keys(keys::PENDING_POLICIES, 1).await?.first() {
                    Some(key) => (inodes, chunks) = tx.step_pending(key).await?,
                    None => tx.end_pending().await?,
                }
            } else if let Some(sweep) = tx.peek_versioned(&keys::POLICY_SWEEP).await? {
                return self.step_sweep(scope, sweep, fence).await;
            } else {
                return Ok(PolicyStep::Idle);
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(PolicyStep::Applied { inodes, chunks });
            }
        }
        Err(Error::Conflict { what: "files whose policy changes", tries: TRIES })
    }

    /// Applies the default to the next chunks.
    async fn step_sweep(
        &self,
        scope: &Scope,
        (sweep, version): (PolicySweep, Revision),
        fence: Option<&Condition>,
    ) -> Result<PolicyStep, Error> {
        let tx = self.begin().await?;
        let after = ScanCursor::from_key(sweep.after.clone());
        let page = tx.chunk_page(Some(&after), Self::PAGE_LEN_MAX).await?;
        let chunks = self.follow_policies(scope, &page.chunks, fence).await?;
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            // Another default begins a new pass, which may be at the same position.
            tx.get::<PolicySweep>(&keys::POLICY_SWEEP).await?;
            if tx.expected(&keys::POLICY_SWEEP) == Some(version) {
                match &page.next {
                    Some(next) => {
                        tx.put(keys::POLICY_SWEEP, &PolicySweep { after: next.key() });
                    }
                    None => tx.delete(keys::POLICY_SWEEP),
                }
            }
            if tx.is_read_only() {
                return Ok(PolicyStep::Applied { inodes: 0, chunks });
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(PolicyStep::Applied { inodes: 0, chunks });
            }
        }
        Err(Error::Conflict { what: "the pass that applies the default", tries: TRIES })
    }

    /// Changes those of these chunks whose redundancy is not what the policy of their file says.
    /// Returns how many.
    ///
    /// The file that wrote a chunk decides. A chunk whose file is not confirmed yet, or is gone, keeps
    /// its policy.
    pub async fn follow_policies(
        &self,
        scope: &Scope,
        chunks: &[(ChunkId, Chunk)],
        fence: Option<&Condition>,
    ) -> Result<usize, Error> {
        scope.require(Access::Admin)?;
        let found = {
            let tx = self.begin().await?;
            let policies = tx.policies().await?;
            let numbers = tx.policy_numbers(chunks).await?;
            let differs = |(_, chunk): &&(ChunkId, Chunk)| {
                let number = numbers.get(&chunk.inode).copied().unwrap_or(chunk.policy);
                policies.get(number).and_then(|it| under(chunk, number, it)).is_some()
            };
            let found: Vec<_> = chunks.iter().filter(differs).map(|(id, _)| *id).collect();
            found
        };
        let mut changed = 0;
        for ids in found.chunks(CHUNKS_OF_FILES_PER_COMMIT) {
            changed += self.follow_at_once(ids, fence).await?;
        }
        Ok(changed)
    }

    async fn follow_at_once(
        &self,
        ids: &[ChunkId],
        fence: Option<&Condition>,
    ) -> Result<usize, Error> {
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin_fenced(fence).await?;
            let default = tx.expect_default().await?;
            let policies = Policies { default, ..tx.policies().await? };
            let mut changed = 0;
            for id in ids {
                let Some(chunk) = tx.readable_chunk(*id).await? else { continue };
                let inode = keys::inode(chunk.inode);
                let (number, version) = match tx.peek_versioned::<Inode>(&inode).await {
                    Ok(Some((inode, version))) => (inode.policy.number, Some(Some(version))),
                    Ok(None) => (chunk.policy, Some(None)),
                    Err(Error::Damaged { .. }) => (chunk.policy, None),
                    Err(error) => return Err(error),
                };
                if tx.put_under(*id, &chunk, number, &policies) {
                    changed += 1;
                    // If the file gets another label meanwhile, this one must not be applied.
                    if let Some(version) = version {
                        tx.expect(inode, version);
                    }
                }
            }
            if tx.is_read_only() {
                return Ok(0);
            }
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(changed);
            }
        }
        Err(Error::Conflict { what: "chunks whose policy changes", tries: TRIES })
    }
}

impl Transaction {
    /// Returns whether a change of policies is not applied to all existing files yet, or a record that
    /// would say so is unreadable.
    pub(super) async fn has_pending_policies(&self) -> Result<bool, Error> {
        let changes = self.peek::<PolicyChanges>(&keys::POLICY_CHANGES).await;
        let sweep = self.peek::<PolicySweep>(&keys::POLICY_SWEEP).await;
        match (changes, sweep) {
            (Err(Error::Damaged { .. }), _) | (_, Err(Error::Damaged { .. })) => Ok(true),
            (changes, sweep) => {
                Ok(changes?.is_some_and(|changes| changes.is_pending) || sweep?.is_some())
            }
        }
    }

    /// Notes that every change was applied.
    async fn end_pending(&mut self) -> Result<(), Error> {
        let changes = self.get::<PolicyChanges>(&keys::POLICY_CHANGES).await?;
        let changes = PolicyChanges { is_pending: false, ..changes.unwrap_or_default() };
        self.expect_empty(Bytes::from_static(keys::PENDING_POLICIES));
        self.put(keys::POLICY_CHANGES, &changes);
        Ok(())
    }

    /// Applies part of a change to a directory or file. Returns the numbers of inodes and chunks.
    async fn step_pending(&mut self, key: &Bytes) -> Result<(usize, usize), Error> {
        let pending = match self.get::<PendingPolicy>(key).await {
            Ok(pending) => pending,
            // Without a position, from the beginning.
            Err(Error::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let inode = keys::pending_policy_inode(key);
        let record = match inode {
            Some(inode) => self.readable_inode(inode).await?,
            None => None,
        };
        let (Some(inode), Some(record)) = (inode, record) else {
            self.delete(key.clone());
            return Ok((0, 0));
        };
        let pending =
            pending.unwrap_or(PendingPolicy { label: record.policy, after: Bytes::new() });
        let policies = self.policies().await?;
        let (next, done) = match &record.content {
            Content::Directory(_) => self.label_entries(inode, &pending, &policies).await?,
            Content::File(file) => {
                let number = record.policy.number;
                self.label_chunks((inode, file), number, &pending.after, &policies).await?
            }
            _ => (None, (0, 0)),
        };
        match next {
            Some(after) => self.put(key.clone(), &PendingPolicy { after, ..pending }),
            None => self.delete(key.clone()),
        }
        Ok(done)
    }

    /// Gives the next entries of a directory its label, unless they have a newer one. Returns the last
    /// of them, if there may be more, and the numbers of inodes and chunks changed.
    async fn label_entries(
        &mut self,
        directory: InodeId,
        PendingPolicy { label, after }: &PendingPolicy,
        policies: &Policies,
    ) -> Result<(Option<Bytes>, (usize, usize)), Error> {
        let prefix = keys::entries(directory);
        let after = match after[..] {
            [] => Bytes::new(),
            _ => Bytes::from([&prefix[..], after].concat()),
        };
        let found = self.try_range::<Entry>(&prefix, &after, STEP).await?;
        let is_page = found.len() == STEP;
        let children: Vec<(Bytes, Option<Entry>)> =
            found.into_iter().map(|(key, entry)| (key, entry.ok())).collect();
        let inodes = children.iter().flat_map(|(_, entry)| entry).map(|entry| entry.inode);
        let inodes: Vec<Bytes> = inodes.map(keys::inode).collect();
        let records = self.try_peek_many_versioned::<Inode>(&inodes).await?;
        let mut records = records.into_iter();
        let (mut last, mut done) = (None, (0, 0));
        for (key, entry) in children {
            if self.keys() >= KEYS_MAX {
                return Ok((last, done));
            }
            last = Some(key.slice(prefix.len()..));
            let Some(entry) = entry else { continue };
            let Some(Ok(Some((record, version)))) = records.next() else { continue };
            let is_labelled = matches!(entry.kind, FileKind::File | FileKind::Directory);
            if !is_labelled || record.policy.change >= label.change {
                continue;
            }
            let key = keys::inode(entry.inode);
            self.expect(key.clone(), Some(version));
            done.0 += 1;
            match &record.content {
                Content::File(File { single: Some(extent), .. }) => {
                    let chunk = extent.chunk;
                    let number = label.number;
                    let of = (entry.inode, chunk);
                    done.1 += usize::from(self.label_chunk(of, number, policies).await?);
                }
                Content::File(File { size: 0, .. }) => {}
                _ => {
                    let pending = PendingPolicy { label: *label, after: Bytes::new() };
                    self.put(keys::pending_policy(entry.inode), &pending);
                }
            }
            self.put(key, &Inode { policy: *label, ..record });
        }
        Ok((last.filter(|_| is_page), done))
    }

    /// Gives the next chunks of a file a policy. Returns the offset of the last of them, if there may
    /// be more, and the number of chunks changed.
    async fn label_chunks(
        &mut self,
        (inode, file): (InodeId, &File),
        number: u32,
        after: &Bytes,
        policies: &Policies,
    ) -> Result<(Option<Bytes>, (usize, usize)), Error> {
        if let Some(extent) = file.single {
            let changed = self.label_chunk((inode, extent.chunk), number, policies).await?;
            return Ok((None, (0, usize::from(changed))));
        }
        let prefix = keys::extents(inode);
        let after = match after[..] {
            [] => Bytes::new(),
            _ => Bytes::from([&prefix[..], after].concat()),
        };
        let found = self.try_range::<Extent>(&prefix, &after, CHUNKS_PER_COMMIT).await?;
        let last = found.last().filter(|_| found.len() == CHUNKS_PER_COMMIT);
        let last = last.map(|(key, _)| key.slice(prefix.len()..));
        let mut changed = 0;
        for extent in found.into_iter().filter_map(|(_, extent)| extent.ok()) {
            changed +=
                usize::from(self.label_chunk((inode, extent.chunk), number, policies).await?);
        }
        Ok((last, (0, changed)))
    }

    /// Gives a chunk that a file wrote a policy. Returns whether it changed.
    async fn label_chunk(
        &mut self,
        (inode, id): (InodeId, ChunkId),
        number: u32,
        policies: &Policies,
    ) -> Result<bool, Error> {
        let policies = match number {
            0 => &Policies { default: self.expect_default().await?, ..policies.clone() },
            _ => policies,
        };
        let chunk = self.readable_chunk(id).await?.filter(|chunk| chunk.inode == inode);
        Ok(chunk.is_some_and(|chunk| self.put_under(id, &chunk, number, policies)))
    }

    fn put_under(&mut self, id: ChunkId, old: &Chunk, number: u32, policies: &Policies) -> bool {
        // A policy that cannot be read removes no replicas.
        let new = policies.get(number).and_then(|replication| under(old, number, replication));
        if let Some(new) = &new {
            self.put_chunk(id, Some(old), Some(new));
        }
        new.is_some()
    }

    /// Returns the policies of the files that wrote these chunks, as far as their inodes are readable.
    async fn policy_numbers(
        &self,
        chunks: &[(ChunkId, Chunk)],
    ) -> Result<BTreeMap<InodeId, u32>, Error> {
        let mut inodes: Vec<InodeId> = chunks.iter().map(|(_, chunk)| chunk.inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        let keys: Vec<Bytes> = inodes.iter().copied().map(keys::inode).collect();
        let records = self.try_peek_many::<Inode>(&keys).await?;
        let numbers = inodes.into_iter().zip(records);
        let numbers = numbers.filter_map(|(inode, it)| Some((inode, it.ok()??.policy.number)));
        Ok(numbers.collect())
    }

    /// Reads an inode without a condition; `None` if it is gone or unreadable.
    async fn readable_inode(&self, inode: InodeId) -> Result<Option<Inode>, Error> {
        match self.peek(&keys::inode(inode)).await {
            Err(Error::Damaged { .. }) => Ok(None),
            found => found,
        }
    }

    /// Reads a chunk that is still needed; the commit requires its record to be unchanged. `None` if it
    /// is unreadable.
    async fn readable_chunk(&mut self, id: ChunkId) -> Result<Option<Chunk>, Error> {
        match self.chunk(id).await {
            Err(Error::Damaged { .. }) => Ok(None),
            found => Ok(found?.filter(|chunk| !chunk.is_tombstone())),
        }
    }
}

/// Returns a chunk with another policy; `None` if it is the one it has. The generation is raised, so
/// that nothing is doomed on a proof from before.
fn under(chunk: &Chunk, number: u32, replication: Replication) -> Option<Chunk> {
    let Redundancy::Replicated { copies } = chunk.redundancy else { return None };
    let is_same = copies == replication.factor && chunk.policy == number;
    (!chunk.is_tombstone() && !is_same).then(|| Chunk {
        redundancy: Redundancy::Replicated { copies: replication.factor },
        policy: number,
        generation: chunk.generation.next(),
        ..chunk.clone()
    })
}

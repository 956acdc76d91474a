//! The commit that makes a file appear.

use bytes::Bytes;
use dfs_types::{Access, Attributes, FileKind, Precondition, Scope, Target, XattrName};

use super::stage::{KEYS_PER_CHUNK, Plans, extent_of, keys_of_chunks};
use super::token::Plan;
use super::{Confirm, Namespace, WrittenChunk};
use crate::namespace::mutation::Mutation;
use crate::namespace::stat::describe;
use crate::namespace::transaction::{Attempt, Transaction};
use crate::namespace::trash::Restorable;
use crate::namespace::{FileStat, Repeat, TRIES};
use crate::records::answer::{Answer, stat_of};
use crate::records::entry::Entry;
use crate::records::extent::Extent;
use crate::records::inode::{Content, File, Inode, Link, Times};
use crate::records::policy::PolicyLabel;
use crate::records::upload::Upload;
use crate::records::xattrs::Xattrs;
use crate::{Error, keys};

/// Chunks that the final commit can register itself, if their replicas are on few nodes.
const DIRECT_MAX: usize = 18;
/// Distinct nodes that the final commit can name in its conditions.
const DIRECT_NODES_MAX: usize = 24;
/// Maximum number of keys of chunks, and of extended attributes with separate records, in the final
/// commit.
const DIRECT_KEYS_MAX: usize = DIRECT_MAX * KEYS_PER_CHUNK;
/// Extents read at a time.
const EXTENTS_STEP: usize = 1_000;

/// A completely written upload.
pub(in crate::namespace) struct FinishedUpload<'a> {
    plans: Plans,
    /// Chunks that the final commit registers, in file order; none when all are staged.
    chunks: Vec<&'a WrittenChunk>,
    request: &'a Confirm,
}

impl Namespace {
    /// Makes the whole file appear in one commit, replacing an older one. First stages what exceeds
    /// one commit.
    ///
    /// A repeat gets the same reply, even when the file was replaced since; [`Error::DeletedSince`]
    /// once it was reaped. A file without chunks needs `repeat`.
    pub async fn confirm(
        &self,
        scope: &Scope,
        request: &Confirm,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Write)?;
        let plans = self.open_plans(&request.tokens)?;
        self.check_written(&plans, &request.chunks)?;
        XattrName::check_all(&request.xattrs)
            .map_err(|(name, error)| Error::Invalid { what: format!("{name}: {error}") })?;
        if request.size == 0 && repeat.is_none() {
            return Err(Error::SlotMissing);
        }
        let mut chunks: Vec<&WrittenChunk> = request.chunks.iter().collect();
        chunks.sort_by_key(|written| written.file_offset);
        let covered: u64 = request.chunks.iter().map(|written| written.seal.length).sum();
        let is_direct = covered == request.size && fits_one_commit(&chunks, request);
        if is_direct {
            check_cover(plans.first(), request.size, &mut chunks.iter().map(|w| piece(w)))?;
        } else if !chunks.is_empty() {
            self.stage_checked(&plans, &request.chunks).await?;
            chunks.clear();
        }
        let finished = FinishedUpload { plans, chunks, request };
        let confirmed = self.apply(Mutation::Confirm(&finished), repeat).await;
        stat_of(self.note_floor(confirmed).await?)
    }

    /// Aborts an upload: its staged chunks, and `chunks`, which are staged for the purpose, are
    /// reaped soon. Does nothing to a confirmed upload. Idempotent.
    pub async fn abort(
        &self,
        scope: &Scope,
        tokens: &[Bytes],
        chunks: &[WrittenChunk],
    ) -> Result<(), Error> {
        scope.require(Access::Write)?;
        let plans = self.open_plans(tokens)?;
        let staged = if chunks.is_empty() {
            Ok(())
        } else {
            self.check_written(&plans, chunks)?;
            self.note_floor(self.stage_checked(&plans, chunks).await).await.map(drop)
        };
        let key = keys::upload(plans.first().inode);
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            let Some(upload) = tx.get::<Upload>(&key).await? else { return staged };
            tx.put(key.clone(), &Upload { expires: crate::namespace::trash::AT_ONCE, ..upload });
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return match staged {
                    // It was aborted before.
                    Err(Error::UploadExpired { .. }) => Ok(()),
                    staged => staged,
                };
            }
        }
        Err(Error::Conflict { what: "the upload to abort", tries: TRIES })
    }

    pub(in crate::namespace) async fn try_confirm(
        &self,
        tx: &mut Transaction,
        upload: &FinishedUpload<'_>,
    ) -> Result<Answer, Error> {
        let plan = upload.plans.first();
        let (inode, size) = (plan.inode, upload.request.size);
        let now = self.expiry_now();
        if let Some(there) = tx.get::<Inode>(&keys::inode(inode)).await? {
            return self.confirmed_before(tx, upload, &there).await;
        }
        let parent = tx.get::<Inode>(&keys::inode(plan.parent)).await?;
        let default = tx.expect_default().await?;
        let policy = tx.policy_of_new(plan, parent.as_ref()).await?;
        let replication = tx.replication_under(policy.number, default).await?;
        let chunk_policy = (policy.number, replication);
        let key = keys::upload(inode);
        let staged = tx.get::<Upload>(&key).await?;
        let mut single = None;
        match staged {
            Some(staged) if staged.reaping || staged.expires <= now => {
                return Err(upload.plans.expired());
            }
            Some(_) => {
                for written in &upload.chunks {
                    if tx.register_chunk(plan, chunk_policy, written).await? {
                        tx.stage_extent(inode, written).await?;
                    }
                }
                self.check_staged(tx, upload).await?;
                tx.delete(key);
                if policy.number != plan.policy {
                    tx.apply_later(inode, policy).await?;
                }
            }
            None if upload.chunks.is_empty() && size > 0 => {
                return Err(self.not_staged(tx, upload).await?);
            }
            None => {
                for written in &upload.chunks {
                    if !tx.register_chunk(plan, chunk_policy, written).await? {
                        // Its record exists, but neither file nor upload: it is being reaped.
                        return Err(Error::DeletedSince { name: plan.name.clone() });
                    }
                }
                if upload.plans.are_expired(now) {
                    return Err(upload.plans.expired());
                }
                match upload.chunks[..] {
                    [only] => single = Some(extent_of(only)),
                    _ => upload.chunks.iter().for_each(|written| {
                        tx.put(keys::extent(inode, written.file_offset), &extent_of(written));
                    }),
                }
            }
        }
        let given = upload.request.attributes;
        let (mode, now) = (given.mode & Attributes::MODE_MASK, self.now());
        let file = File { size, chunk_size: plan.chunk_size, single };
        let record = Inode::new(Attributes { mode, ..given }, now, Content::File(file));
        let mut record = Inode { policy, ..record };
        tx.add_xattrs(inode, &mut record, &upload.request.xattrs);
        self.link(tx, plan, parent.as_ref(), upload.request.precondition).await?;
        tx.put(keys::inode(inode), &record);
        let replication = [(policy.number, replication)].into();
        let stat = describe(inode, &record, None, tx.new_change(), &replication);
        Ok(Answer::Stat(stat))
    }

    /// Gives the file its name, and leaves the previous holder of the name to the reaper.
    async fn link(
        &self,
        tx: &mut Transaction,
        plan: &Plan,
        parent: Option<&Inode>,
        precondition: Option<Precondition>,
    ) -> Result<(), Error> {
        let name = || plan.name.clone();
        let link = parent.and_then(Inode::directory).map(|parent| parent.link);
        if link != Some(Link::Linked) {
            return Err(Error::ParentDeleted { name: name() });
        }
        let now = self.now();
        let key = keys::entry(plan.parent, &plan.name);
        let found = tx.get::<Entry>(&key).await?;
        if let Some(entry) = found {
            if entry.kind == FileKind::Directory {
                return Err(Error::NameIsDirectory { name: name() });
            }
            if precondition == Some(Precondition::Absent) {
                return Err(Error::NameTaken { name: name() });
            }
        }
        tx.require(precondition, &Target::child(plan.parent, &plan.name), found).await?;
        if let Some(entry) = found {
            self.unlink(tx, plan.parent, &plan.name, entry, Restorable::ForAWhile, now).await?;
        }
        tx.put(keys::times(plan.parent), &Times::now(now));
        tx.put(key, &Entry::new(plan.inode, FileKind::File));
        Ok(())
    }

    /// Returns the reply to a repeat, if it is one.
    async fn confirmed_before(
        &self,
        tx: &mut Transaction,
        upload: &FinishedUpload<'_>,
        there: &Inode,
    ) -> Result<Answer, Error> {
        let plan = upload.plans.first();
        let otherwise = || Error::ConfirmedOtherwise { name: plan.name.clone() };
        let Content::File(file) = &there.content else { return Err(otherwise()) };
        if file.size != upload.request.size {
            return Err(otherwise());
        }
        let ids: Vec<_> = upload.chunks.iter().map(|written| written.chunk).collect();
        let known = tx.peek_chunks(&ids).await?;
        for (written, known) in upload.chunks.iter().zip(known) {
            if known.is_none_or(|known| known.seal != written.seal || known.inode != plan.inode) {
                return Err(otherwise());
            }
        }
        let stat = tx.stat(plan.inode).await?;
        stat.map(Answer::Stat).ok_or(Error::Stale(plan.inode))
    }

    /// Returns why a confirm of staged chunks finds nothing staged.
    async fn not_staged(
        &self,
        tx: &Transaction,
        upload: &FinishedUpload<'_>,
    ) -> Result<Error, Error> {
        let plan = upload.plans.first();
        let name = plan.name.clone();
        for written in &upload.request.chunks {
            if tx.peek_chunk(written.chunk).await?.is_some() {
                return Ok(Error::DeletedSince { name });
            }
        }
        if upload.plans.are_expired(self.expiry_now()) {
            return Ok(upload.plans.expired());
        }
        let what = format!("no chunks given, but the file has {} bytes", upload.request.size);
        Ok(Error::BadCover { name, what })
    }

    /// Checks that the staged chunks and those of this commit cover the file. Each stage writes
    /// `u/`, which the commit depends on, so nothing can be staged in between.
    async fn check_staged(
        &self,
        tx: &Transaction,
        upload: &FinishedUpload<'_>,
    ) -> Result<(), Error> {
        let plan = upload.plans.first();
        let mut pieces: Vec<(u64, u64)> = upload.chunks.iter().map(|w| piece(w)).collect();
        let mut after = Bytes::new();
        loop {
            let prefix = keys::extents(plan.inode);
            let page = tx.range::<Extent>(&prefix, &after, EXTENTS_STEP).await?;
            let is_last = page.len() < EXTENTS_STEP;
            for (key, extent) in page {
                let damaged = || Error::Damaged { key: keys::show(&key), what: "not an extent" };
                pieces.push((keys::extent_offset(&key).ok_or_else(damaged)?, extent.length));
                after = key;
            }
            if is_last {
                break;
            }
        }
        pieces.sort_unstable();
        pieces.dedup();
        check_cover(plan, upload.request.size, &mut pieces.into_iter())
    }
}

impl FinishedUpload<'_> {
    /// Returns the keys that a commit of chunks not staged before reads, other than that of a policy.
    pub(in crate::namespace) fn known_keys(&self) -> Vec<Bytes> {
        let plan = self.plans.first();
        let names = [keys::inode(plan.parent), keys::entry(plan.parent, &plan.name)];
        let chunks = self.chunks.iter().copied();
        names.into_iter().chain(keys_of_chunks(plan, chunks)).collect()
    }
}

fn fits_one_commit(chunks: &[&WrittenChunk], request: &Confirm) -> bool {
    let (_, separate) = Xattrs::split(&request.xattrs);
    let keys = chunks.len() * KEYS_PER_CHUNK + separate.len();
    let receipts = chunks.iter().flat_map(|written| &written.receipts);
    let nodes: std::collections::BTreeSet<_> = receipts.map(|receipt| receipt.node).collect();
    // Extended attributes alone always fit.
    chunks.is_empty() || (keys <= DIRECT_KEYS_MAX && nodes.len() <= DIRECT_NODES_MAX)
}

fn piece(written: &WrittenChunk) -> (u64, u64) {
    (written.file_offset, written.seal.length)
}

/// Refuses pieces (offset and length, in file order) that leave a hole, overlap, or end elsewhere
/// than the file.
fn check_cover(
    plan: &Plan,
    size: u64,
    pieces: &mut dyn Iterator<Item = (u64, u64)>,
) -> Result<(), Error> {
    let mut end = 0;
    for (offset, length) in pieces {
        if offset != end {
            let what = format!("a chunk starts at {offset}, but the one before ends at {end}");
            return Err(Error::BadCover { name: plan.name.clone(), what });
        }
        end = offset.saturating_add(length);
    }
    if end != size {
        let what = format!("the chunks end at {end}, but the file has {size} bytes");
        return Err(Error::BadCover { name: plan.name.clone(), what });
    }
    Ok(())
}

impl Transaction {
    /// Returns the policy of a new file: the one its writer asked for, or that of its directory.
    async fn policy_of_new(
        &self,
        plan: &Plan,
        parent: Option<&Inode>,
    ) -> Result<PolicyLabel, Error> {
        if plan.is_explicit {
            let change = self.newest_policy_change().await?;
            return Ok(PolicyLabel { number: plan.policy, change });
        }
        Ok(parent.map(|parent| parent.policy).unwrap_or_default())
    }
}

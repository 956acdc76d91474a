//! The walk over all keys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dfs_types::{ClusterKeys, FileKind, InodeId, Level, Redundancy, Replication, XattrName};

use super::tally::{Chunks, Inodes, Work};
use super::{ProblemKind, Report};
use crate::codec::Record;
use crate::engine::lease::decode_epoch;
use crate::engine::{Snapshot, Versioned};
use crate::namespace::{Chunk, Disks, Node, Policy, WorkerControl};
use crate::records::answer::Kept;
use crate::records::entry::Entry;
use crate::records::extent::Extent;
use crate::records::format::{Coordinators, StoreFormat, Upgrade};
use crate::records::inode::{Content, File, Inode, Link, Times};
use crate::records::policy::{PendingPolicy, PolicyChanges, PolicySweep};
use crate::records::setting::{ClientFloor, Cluster, Floor, Gc, Mark, NextDisk, NextInode};
use crate::records::unlinked::Unlinked;
use crate::records::unneeded::Unneeded;
use crate::records::upload::Upload;
use crate::records::work::Deletion;
use crate::records::xattrs::{SeparateXattr, XattrValue};
use crate::{Error, keys};

/// Keys per step.
const PAGE: usize = 500;

/// Keys that every store of a cluster must have.
const NEEDED: [Bytes; 10] = [
    keys::CLUSTER,
    keys::FORMAT,
    keys::KEYS,
    keys::REPLICATION,
    keys::FLOOR,
    keys::GC,
    keys::INODES,
    keys::DISKS,
    keys::MOVES,
    keys::NAMES,
];

pub(super) struct Walk<'a> {
    snapshot: &'a dyn Snapshot,
    pub(super) report: Report,
    /// The level that the cluster writes: no record may be of a later one.
    written: Level,
    after: Bytes,
    /// `None` when a node record is unreadable.
    disks: Option<Disks>,
    /// Replicas of the policies, by number; `None` when some are unreadable.
    policies: Option<BTreeMap<u32, u8>>,
    next_inode: Option<InodeId>,
    needed: Vec<Bytes>,
    inodes: Inodes,
    chunks: Chunks,
    work: Work,
    /// Files whose inodes are already reaped: few.
    half_reaped: BTreeSet<InodeId>,
    /// Files whose extents are under `x/`, with their sizes, in order.
    long: Vec<(InodeId, u64)>,
    /// Number of them that the walk over extents has passed.
    long_passed: usize,
    /// Number of large extended attributes per inode whose values were not seen yet: few.
    xattrs_missing: BTreeMap<InodeId, usize>,
    /// The file whose extents are being read.
    cover: Option<Cover>,
}

/// Coverage of a file by extents.
struct Cover {
    inode: InodeId,
    end: u64,
    /// Offset of the first extent that does not start at the end of the one before.
    gap: Option<u64>,
}

/// Additional records needed to check a page.
struct Known {
    /// Inodes with a name in the page, as far as readable.
    inodes: BTreeMap<InodeId, Inode>,
    /// Directories of the page that have times.
    times: BTreeSet<InodeId>,
}

impl<'a> Walk<'a> {
    pub(super) async fn new(snapshot: &'a dyn Snapshot) -> Result<Self, Error> {
        let format = snapshot.get(&keys::FORMAT).await?;
        let format = format.and_then(|format| {
            StoreFormat::decode(&keys::FORMAT, &format.value, Level::NEWEST).ok()
        });
        let written = format.map_or(Level::NEWEST, |format| format.written);
        let (mut nodes, mut knows_all_disks) = (Vec::new(), true);
        let mut after = Bytes::new();
        loop {
            let page = snapshot.range(keys::NODES, &after, PAGE).await?;
            for (key, found) in &page {
                match (keys::node_id(key), Node::decode(key, &found.value, written)) {
                    (Some(node), Ok(record)) => nodes.push((node, record)),
                    _ => knows_all_disks = false,
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = last.clone(),
                _ => break,
            }
        }
        let policies = policies(snapshot, written).await?;
        let next = snapshot.get(&keys::INODES).await?;
        let next =
            next.and_then(|next| NextInode::decode(&keys::INODES, &next.value, written).ok());
        Ok(Self {
            snapshot,
            report: Report { revision: snapshot.revision(), ..Report::default() },
            written,
            after: Bytes::new(),
            disks: knows_all_disks.then(|| Disks::of(&nodes)),
            policies,
            next_inode: next.map(|NextInode(next)| next),
            needed: NEEDED.to_vec(),
            inodes: Inodes::default(),
            chunks: Chunks::default(),
            work: Work::default(),
            half_reaped: BTreeSet::new(),
            long: Vec::new(),
            long_passed: 0,
            xattrs_missing: BTreeMap::new(),
            cover: None,
        })
    }

    /// Checks the next page. Returns whether there are more.
    pub(super) async fn step(&mut self) -> Result<bool, Error> {
        let page = self.snapshot.range(&[], &self.after, PAGE).await?;
        let has_more = page.len() == PAGE;
        let known = self.known(&page).await?;
        for (key, Versioned { value, .. }) in page {
            self.report.keys += 1;
            self.report.bytes += (key.len() + value.len()) as u64;
            self.check_record(&key, &value, &known).await?;
            self.after = key;
        }
        Ok(has_more)
    }

    pub(super) async fn finish(mut self) -> Result<Report, Error> {
        self.end_cover().await?;
        self.pass_long(None);
        for key in std::mem::take(&mut self.needed) {
            self.add(ProblemKind::Missing, &key, "missing");
        }
        for key in [keys::inode(InodeId::ROOT), keys::times(InodeId::ROOT)] {
            if self.snapshot.get(&key).await?.is_none() {
                self.add(ProblemKind::Missing, &key, "the root is missing");
            }
        }
        for (inode, missing) in std::mem::take(&mut self.xattrs_missing) {
            if missing > 0 {
                let what = format!("{missing} of its extended attributes have no value");
                self.add(ProblemKind::Inode, &keys::inode(inode), what);
            }
        }
        self.inodes.judge(&mut self.report);
        self.chunks.judge(&mut self.report);
        self.work.judge(&mut self.report);
        Ok(self.report)
    }

    fn add(&mut self, kind: ProblemKind, key: &[u8], what: impl Into<String>) {
        self.report.add(kind, key, what);
    }

    /// Reads the records needed to check a page. Unreadable ones are reported at their own keys.
    async fn known(&self, page: &[(Bytes, Versioned)]) -> Result<Known, Error> {
        let (mut wanted, mut directories) = (BTreeSet::new(), Vec::new());
        for (key, found) in page {
            if let Some((parent, _)) = keys::entry_parts(key) {
                let child =
                    Entry::decode(key, &found.value, self.written).ok().map(|entry| entry.inode);
                wanted.extend(child.into_iter().chain([parent]));
            } else if let Some((_, inode)) = keys::unlinked_parts(key) {
                wanted.insert(inode);
            } else if let Some(inode) = keys::record_inode(key) {
                let record = Inode::decode(key, &found.value, self.written).ok();
                let is_directory = record.is_some_and(|record| record.directory().is_some());
                directories.extend(is_directory.then_some(inode));
            } else {
                let xattr = keys::xattr_parts(key).map(|(inode, _)| inode);
                wanted.extend(keys::times_inode(key).or(xattr));
            }
        }
        let records: Vec<Bytes> = wanted.iter().copied().map(keys::inode).collect();
        let found = self.snapshot.get_many(&records).await?;
        let read = |((inode, key), found): ((InodeId, &Bytes), Option<Versioned>)| {
            Some((inode, Inode::decode(key, &found?.value, self.written).ok()?))
        };
        let inodes = wanted.into_iter().zip(&records).zip(found).filter_map(read).collect();
        let keys: Vec<Bytes> = directories.iter().copied().map(keys::times).collect();
        let found = self.snapshot.get_many(&keys).await?;
        let has_times = directories.into_iter().zip(found).filter(|(_, found)| found.is_some());
        Ok(Known { inodes, times: has_times.map(|(inode, _)| inode).collect() })
    }

    /// Decodes a record, or reports it.
    fn read<R: Record>(&mut self, key: &Bytes, value: &Bytes) -> Option<R> {
        match R::decode(key, value, self.written) {
            Ok(record) => Some(record),
            Err(Error::NewerRecord { unknown, .. }) => {
                let what = format!("it has {unknown}, which write level {} lacks", self.written);
                self.add(ProblemKind::NewerFormat, key, what);
                None
            }
            Err(_) => {
                let what = format!("its {} bytes cannot be decoded", value.len());
                self.add(ProblemKind::Unreadable, key, what);
                None
            }
        }
    }

    async fn check_record(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        known: &Known,
    ) -> Result<(), Error> {
        if let Some((parent, _)) = keys::entry_parts(key) {
            self.check_entry(key, value, parent, known);
        } else if let Some(inode) = keys::record_inode(key) {
            self.check_inode(key, value, inode, known);
        } else if let Some(inode) = keys::times_inode(key) {
            self.read::<Times>(key, value);
            let owner = known.inodes.get(&inode);
            if owner.and_then(Inode::directory).is_none() {
                self.add(ProblemKind::Inode, key, "times of an inode that is not a directory");
            }
        } else if let Some((inode, offset)) = keys::extent_parts(key) {
            self.check_extent(key, value, inode, offset).await?;
        } else if let Some((inode, name)) = keys::xattr_parts(key) {
            self.check_xattr(key, value, inode, &name, known);
        } else if let Some(chunk) = keys::chunk_id(key) {
            let Some(record) = self.read::<Chunk>(key, value) else {
                self.work.unreadable.insert(chunk);
                return Ok(());
            };
            self.work.record(chunk, &record);
            self.chunks.record(chunk, record.references, record.seal.length);
            let is_tombstone = record.is_tombstone();
            self.report.tombstones += u64::from(is_tombstone);
            self.report.chunks += u64::from(!is_tombstone);
            self.check_policy(key, &record);
            for replica in &record.replicas {
                let disks = self.disks.as_ref();
                if disks.is_some_and(|disks| disks.get(replica.disk).is_none()) {
                    let what = format!("a replica is on disk {}, which no node has", replica.disk);
                    self.add(ProblemKind::Chunk, key, what);
                }
            }
        } else if keys::node_id(key).is_some() {
            self.report.nodes += u64::from(self.read::<Node>(key, value).is_some());
        } else if let Some((_, inode)) = keys::unlinked_parts(key) {
            self.check_unlinked(key, value, inode, known);
        } else if keys::policy_number(key).is_some() {
            self.read::<Policy>(key, value);
        } else if keys::pending_policy_inode(key).is_some() {
            self.read::<PendingPolicy>(key, value);
        } else if keys::upload_inode(key).is_some() {
            self.report.uploads += u64::from(self.read::<Upload>(key, value).is_some());
        } else if let Some(chunk) = keys::repair_chunk(key) {
            self.read::<Mark>(key, value);
            self.work.repair_key(chunk, key, &mut self.report);
        } else if let Some(chunk) = keys::deletion_chunk(key) {
            self.read::<Deletion>(key, value);
            self.work.deletion_key(chunk, key, &mut self.report);
        } else if keys::unneeded_parts(key).is_some() {
            self.read::<Unneeded>(key, value);
        } else if keys::answer_client(key).is_some() {
            self.report.answers += u64::from(self.read::<Kept>(key, value).is_some());
        } else {
            self.check_setting(key, value);
        }
        Ok(())
    }

    /// Checks that a chunk is to have as many replicas as its policy says.
    fn check_policy(&mut self, key: &Bytes, chunk: &Chunk) {
        let Redundancy::Replicated { copies } = chunk.redundancy else { return };
        let Some(policies) = &self.policies else { return };
        let says = policies.get(&chunk.policy).copied();
        // Another default is being applied, unless it is listed.
        if chunk.is_tombstone() || says == Some(copies) || chunk.policy == 0 && says.is_none() {
            return;
        }
        let number = chunk.policy;
        let what = match says {
            Some(says) => format!("{copies} replicas wanted, but policy {number} says {says}"),
            None => format!("policy {number} does not exist"),
        };
        self.add(ProblemKind::Chunk, key, what);
    }

    fn check_entry(&mut self, key: &Bytes, value: &Bytes, parent: InodeId, known: &Known) {
        self.report.names += 1;
        let of = |inode| known.inodes.get(&inode);
        if of(parent).and_then(Inode::directory).is_none() {
            self.add(ProblemKind::Name, key, "its parent is not a directory");
        }
        let Some(entry) = self.read::<Entry>(key, value) else { return };
        self.inodes.named.push(entry.inode);
        let number = entry.inode;
        let Some(inode) = of(number) else {
            let what = format!("it names inode {number}, which is missing or unreadable");
            return self.add(ProblemKind::Name, key, what);
        };
        if inode.kind() != entry.kind {
            let what = format!("it names inode {number}, which is of another kind");
            self.add(ProblemKind::Name, key, what);
        }
        if let Some(directory) = inode.directory() {
            if directory.parent != parent {
                let what = format!("inode {number} says it is in directory {}", directory.parent);
                self.add(ProblemKind::Name, key, what);
            }
            if directory.link != Link::Linked {
                self.add(ProblemKind::Name, key, format!("inode {number} says it is unlinked"));
            }
        }
    }

    fn check_inode(&mut self, key: &Bytes, value: &Bytes, number: InodeId, known: &Known) {
        self.inodes.records.push(number);
        if self.next_inode.is_some_and(|next| number >= next) {
            self.add(ProblemKind::Inode, key, "its number was not issued yet");
        }
        let Some(inode) = self.read::<Inode>(key, value) else { return };
        let policy = inode.policy.number;
        let is_known = |policies: &BTreeMap<u32, u8>| policies.contains_key(&policy);
        if policy != 0 && !self.policies.as_ref().is_none_or(is_known) {
            self.add(ProblemKind::Inode, key, format!("policy {policy} does not exist"));
        }
        let separate = inode.xattrs.separate().count();
        if separate > 0 {
            self.xattrs_missing.insert(number, separate);
        }
        match inode.content {
            Content::File(File { size, single: None, .. }) => {
                self.report.files += 1;
                if size > 0 {
                    self.long.push((number, size));
                }
            }
            Content::File(File { size, single: Some(extent), .. }) => {
                self.report.files += 1;
                self.count(&extent);
                if extent.length != size {
                    let what = format!("{size} bytes in an extent of {}", extent.length);
                    self.add(ProblemKind::Extent, key, what);
                }
            }
            Content::Directory(_) => {
                self.report.directories += 1;
                if !known.times.contains(&number) {
                    self.add(ProblemKind::Inode, key, "a directory without times");
                }
            }
            Content::Symlink { .. } => self.report.symlinks += 1,
            Content::Fifo
            | Content::Socket
            | Content::CharacterDevice { .. }
            | Content::BlockDevice { .. } => self.report.files += 1,
        }
    }

    fn check_unlinked(&mut self, key: &Bytes, value: &Bytes, inode: InodeId, known: &Known) {
        self.report.unlinked += 1;
        self.inodes.unlinked.push(inode);
        let Some(unlinked) = self.read::<Unlinked>(key, value) else { return };
        let Some(record) = known.inodes.get(&inode) else {
            // A file loses its inode first, then its extents.
            if unlinked.reaping && unlinked.kind == FileKind::File {
                self.half_reaped.insert(inode);
            } else {
                self.add(ProblemKind::Name, key, "there is no such inode");
            }
            return;
        };
        if record.kind() != unlinked.kind {
            self.add(ProblemKind::Name, key, "the inode is of another kind");
        }
        if record.directory().is_some_and(|directory| directory.link == Link::Linked) {
            self.add(ProblemKind::Name, key, "the directory says it is linked");
        }
    }

    async fn check_extent(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        inode: InodeId,
        offset: u64,
    ) -> Result<(), Error> {
        if self.cover.as_ref().is_none_or(|cover| cover.inode != inode) {
            self.end_cover().await?;
            self.cover = Some(Cover { inode, end: 0, gap: None });
        }
        let extent = self.read::<Extent>(key, value);
        if let Some(extent) = &extent {
            self.count(extent);
        }
        let length = extent.map_or(0, |extent| extent.length);
        if let Some(cover) = &mut self.cover {
            if cover.end != offset {
                cover.gap.get_or_insert(offset);
            }
            cover.end = offset.saturating_add(length);
        }
        Ok(())
    }

    /// Checks that the inode lists the attribute with the length of its value.
    fn check_xattr(
        &mut self,
        key: &Bytes,
        value: &Bytes,
        inode: InodeId,
        name: &XattrName,
        known: &Known,
    ) {
        let Some(SeparateXattr(value)) = self.read::<SeparateXattr>(key, value) else { return };
        let owner = known.inodes.get(&inode);
        let named = owner.and_then(|owner| owner.xattrs.0.get(name));
        if named != Some(&XattrValue::Separate(value.len() as u32)) {
            self.add(ProblemKind::Inode, key, "its inode has no such extended attribute");
        } else if let Some(missing) = self.xattrs_missing.get_mut(&inode) {
            *missing -= 1;
        }
    }

    fn count(&mut self, extent: &Extent) {
        self.report.extents += 1;
        self.chunks.extent(extent.chunk, extent.chunk_offset.saturating_add(extent.length));
    }

    /// Checks the extents of a file once all were read.
    async fn end_cover(&mut self) -> Result<(), Error> {
        let Some(Cover { inode, end, gap }) = self.cover.take() else { return Ok(()) };
        let key = keys::extents(inode);
        if let Some(size) = self.pass_long(Some(inode)) {
            if let Some(gap) = gap {
                let what = format!("the extent at {gap} does not start where another ends");
                self.add(ProblemKind::Extent, &key, what);
            } else if end != size {
                let what = format!("the extents end at {end}, but the file has {size} bytes");
                self.add(ProblemKind::Extent, &key, what);
            }
            return Ok(());
        }
        // Staged or partly reaped extents have no file.
        let is_staged = self.snapshot.get(&keys::upload(inode)).await?.is_some();
        if !is_staged && !self.half_reaped.contains(&inode) {
            self.add(ProblemKind::Extent, &key, "the extents belong to no file");
        }
        Ok(())
    }

    /// Reports that the files before `inode` have no extents. Returns the size of that file, if it
    /// needs any.
    fn pass_long(&mut self, inode: Option<InodeId>) -> Option<u64> {
        while let Some(&(number, size)) = self.long.get(self.long_passed) {
            if inode.is_some_and(|inode| number > inode) {
                return None;
            }
            self.long_passed += 1;
            if inode == Some(number) {
                return Some(size);
            }
            let what = format!("{size} bytes, but no extents");
            self.add(ProblemKind::Extent, &keys::inode(number), what);
        }
        None
    }

    fn check_setting(&mut self, key: &Bytes, value: &Bytes) {
        self.needed.retain(|needed| needed != key);
        if *key == keys::CLUSTER {
            self.read::<Cluster>(key, value);
        } else if *key == keys::FORMAT {
            self.read::<StoreFormat>(key, value);
        } else if *key == keys::UPGRADE {
            self.read::<Upgrade>(key, value);
        } else if *key == keys::COORDINATORS {
            self.read::<Coordinators>(key, value);
        } else if *key == keys::KEYS {
            self.read::<ClusterKeys>(key, value);
        } else if *key == keys::REPLICATION {
            self.read::<Replication>(key, value);
        } else if *key == keys::POLICY_CHANGES {
            self.read::<PolicyChanges>(key, value);
        } else if *key == keys::POLICY_SWEEP {
            self.read::<PolicySweep>(key, value);
        } else if *key == keys::FLOOR {
            self.read::<Floor>(key, value);
        } else if *key == keys::GC {
            self.read::<Gc>(key, value);
        } else if *key == keys::CLIENT_FLOOR {
            self.read::<ClientFloor>(key, value);
        } else if *key == keys::INODES {
            self.read::<NextInode>(key, value);
        } else if *key == keys::DISKS {
            self.read::<NextDisk>(key, value);
        } else if [keys::MOVES, keys::NAMES, keys::NODE_INTENT].contains(key) {
            self.read::<Mark>(key, value);
        } else if key.starts_with(keys::WORKERS) {
            self.read::<WorkerControl>(key, value);
        } else if *key == keys::MIGRATION {
            let what = "unfinished migration; `dfs metadata migrate` finishes it";
            self.add(ProblemKind::UnfinishedMigration, key, what);
        } else if key.starts_with(keys::LEASES) && key.ends_with(keys::EPOCH) {
            if let Err(error) = decode_epoch(value) {
                let kind = match error {
                    crate::engine::EngineError::NewerFormat { .. } => ProblemKind::NewerFormat,
                    _ => ProblemKind::Unreadable,
                };
                self.add(kind, key, error.to_string());
            }
        } else if !(key.starts_with(keys::LEASES) && key.ends_with(keys::RENEWAL)) {
            self.add(ProblemKind::UnknownKey, key, "no record has such a key");
        }
    }
}

/// Reads the replicas of each policy; of the default, unless another one is being applied. `None` if
/// any is unreadable.
async fn policies(
    snapshot: &dyn Snapshot,
    written: Level,
) -> Result<Option<BTreeMap<u32, u8>>, Error> {
    let mut policies = BTreeMap::new();
    let mut after = Bytes::new();
    loop {
        let page = snapshot.range(keys::POLICIES, &after, PAGE).await?;
        for (key, found) in &page {
            let policy = Policy::decode(key, &found.value, written);
            let (Some(number), Ok(policy)) = (keys::policy_number(key), policy) else {
                return Ok(None);
            };
            policies.insert(number, policy.copies);
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => after = last.clone(),
            _ => break,
        }
    }
    if snapshot.get(&keys::POLICY_SWEEP).await?.is_none()
        && let Some(found) = snapshot.get(&keys::REPLICATION).await?
        && let Ok(default) = Replication::decode(&keys::REPLICATION, &found.value, written)
    {
        policies.insert(0, default.factor);
    }
    Ok(Some(policies))
}

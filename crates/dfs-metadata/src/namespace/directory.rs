//! Creating directories.

use dfs_types::{Access, Attributes, FileKind, InodeId, Name, Scope, Target, Timestamp};

use super::mutation::Mutation;
use super::resolve::{Last, Named, Place, resolve};
use super::transaction::{Attempt, Transaction};
use super::{FileStat, Namespace, Repeat, TRIES};
use crate::records::answer::{Answer, stat_of};
use crate::records::entry::Entry;
use crate::records::inode::{Content, Directory, Inode, Link, Times};
use crate::records::policy::PolicyLabel;
use crate::{Error, keys};

/// Maximum number of directories created in one commit: with three keys each, and the path that
/// leads there, they stay below the limit of a commit.
const AT_ONCE: usize = 12;

/// Creates a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeDirectory {
    /// Where to create it.
    pub target: Target,
    /// Creates missing parents of the path, and accepts an existing directory.
    pub parents: bool,
    /// Attributes of each directory created.
    pub attributes: Attributes,
}

impl Namespace {
    /// Creates a directory. Many missing parents take several transactions, from the top down.
    pub async fn make_directory(
        &self,
        scope: &Scope,
        request: &MakeDirectory,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        scope.require(Access::Write)?;
        while self.make_upper_directories(request, repeat).await? {}
        stat_of(self.apply(Mutation::MakeDirectory(request), repeat).await?)
    }

    /// Creates the upper directories of a long chain of missing parents. Returns whether it did.
    async fn make_upper_directories(
        &self,
        request: &MakeDirectory,
        repeat: Option<&Repeat>,
    ) -> Result<bool, Error> {
        if !request.parents {
            return Ok(false);
        }
        for tries in 0..TRIES {
            self.pause_before(tries).await;
            let mut tx = self.begin().await?;
            if let Some(repeat) = repeat
                && super::reply_cache::earlier_answer(&mut tx, repeat, self.now()).await?.is_some()
            {
                return Ok(false);
            }
            let place = resolve(&mut tx, &request.target, Last::Follow).await?;
            let Place::Named(named) = place else { return Ok(false) };
            if named.missing_below.len() < AT_ONCE {
                return Ok(false);
            }
            let names = named.missing_below.get(..AT_ONCE - 1).unwrap_or_default();
            self.make_chain(&mut tx, &named, names, request.attributes).await?;
            if let Attempt::Committed(_) = self.commit(tx).await? {
                return Ok(true);
            }
        }
        Err(Error::Conflict { what: "the directory to create", tries: TRIES })
    }

    pub(super) async fn try_make_directory(
        &self,
        tx: &mut Transaction,
        request: &MakeDirectory,
    ) -> Result<Answer, Error> {
        let target = &request.target;
        let last = if request.parents { Last::Follow } else { Last::Keep };
        let place = resolve(tx, target, last).await?;
        let there = match &place {
            Place::Root => Some(InodeId::ROOT),
            Place::Inode(inode) => return Err(Error::NameNeeded(*inode)),
            Place::Named(Named { entry: Some(entry), .. }) => match entry.kind {
                FileKind::Directory => Some(entry.inode),
                _ => return Err(Error::AlreadyExists { target: target.clone() }),
            },
            Place::Named(_) => None,
        };
        if let Some(inode) = there {
            if !request.parents {
                return Err(Error::AlreadyExists { target: target.clone() });
            }
            let stat = tx.stat(inode).await?;
            return stat.map(Answer::Stat).ok_or(Error::Stale(inode));
        }
        let named = place.named()?;
        let named = if request.parents { named } else { named.in_parent()? };
        if named.missing_below.len() >= AT_ONCE {
            return Err(Error::Conflict { what: "the directory to create", tries: 1 });
        }
        let names = &named.missing_below;
        self.make_chain(tx, &named, names, request.attributes).await.map(Answer::Stat)
    }

    /// Creates a chain of directories at a free place. Describes the last.
    async fn make_chain(
        &self,
        tx: &mut Transaction,
        top: &Named,
        below: &[Name],
        attributes: Attributes,
    ) -> Result<FileStat, Error> {
        let now = self.now();
        let policy = tx.grow(top.parent, &top.target, now).await?;
        let mode = attributes.mode & Attributes::MODE_MASK;
        let attributes = Attributes { mode, ..attributes };
        let mut parent = top.parent;
        let mut made = None;
        for name in std::iter::once(&top.name).chain(below) {
            let inode = self.next_inode().await?;
            let place = Directory { parent, link: Link::Linked };
            let record = Inode { policy, ..Inode::new(attributes, now, Content::Directory(place)) };
            let times = Times { mtime: attributes.mtime, ctime: now };
            tx.put(keys::entry(parent, name), &Entry::new(inode, FileKind::Directory));
            tx.put(keys::inode(inode), &record);
            tx.put(keys::times(inode), &times);
            made = Some(tx.describe(inode, &record, Some(times), tx.new_change()).await?);
            parent = inode;
        }
        made.ok_or_else(|| top.not_found())
    }
}

impl Transaction {
    /// Adds an entry to a directory: it must still exist, and its times change. Returns the policy
    /// that new entries inherit.
    pub(super) async fn grow(
        &mut self,
        directory: InodeId,
        target: &Target,
        now: Timestamp,
    ) -> Result<PolicyLabel, Error> {
        let record = self.get::<Inode>(&keys::inode(directory)).await?;
        let is_linked =
            |record: &Inode| record.directory().is_some_and(|found| found.link == Link::Linked);
        let not_found = || Error::NotFound { target: target.clone() };
        let record = record.filter(is_linked).ok_or_else(not_found)?;
        self.put(keys::times(directory), &Times::now(now));
        Ok(record.policy)
    }
}

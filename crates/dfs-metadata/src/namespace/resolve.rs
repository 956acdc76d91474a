//! Resolving a target.

use std::collections::VecDeque;

use bytes::Bytes;
use dfs_types::{DfsPath, FileKind, InodeId, Name, PathError, Revision, Target};

use super::transaction::Transaction;
use crate::records::entry::Entry;
use crate::records::inode::{Content, Inode, Link};
use crate::{Error, keys};

/// Maximum number of symlinks followed per path, as in Linux.
const SYMLINKS_MAX: u32 = 40;
/// Maximum number of names looked up: those of the longest path, and as many from symlinks.
const STEPS_MAX: usize = 8_192;
/// Maximum number of entries of a path that a change lists in its conditions. A longer path is
/// guarded by [`keys::NAMES`], which changes whenever a directory or symlink loses its name.
const GUARDED_MAX: usize = 40;

/// Treatment of a symlink at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// Maximum number of directories walked upwards to determine whether one is within another.
pub(super) const DEPTH_MAX: usize = 8_192;

/// The result of resolving a target.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Root,
    Named(Named),
    /// Addressed by number: no name is known.
    Inode(InodeId),
}

/// A name in a directory, taken or free.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// The requested target, or the path up to its first missing name.
    pub(super) target: Target,
    pub(super) parent: InodeId,
    pub(super) name: Name,
    pub(super) entry: Option<Entry>,
    /// Set if the parent has a name itself, as one on a path always has.
    is_parent_linked: bool,
    /// Names of the path below this one, when this one is missing.
    pub(super) missing_below: Vec<Name>,
}

impl Place {
    /// Returns the inode.
    pub(super) fn inode(&self) -> Result<InodeId, Error> {
        match self {
            Self::Root => Ok(InodeId::ROOT),
            Self::Named(named) => named.taken().map(|entry| entry.inode),
            Self::Inode(inode) => Ok(*inode),
        }
    }

    /// Returns a name that may be changed: its directory has not been deleted.
    pub(super) fn named(self) -> Result<Named, Error> {
        match self {
            Self::Root => Err(Error::IsRoot),
            Self::Inode(inode) => Err(Error::NameNeeded(inode)),
            Self::Named(named) if named.is_parent_linked => Ok(named),
            Self::Named(named) => Err(named.not_found()),
        }
    }
}

impl Named {
    /// Returns the existing entry.
    pub(super) fn taken(&self) -> Result<Entry, Error> {
        self.entry.ok_or_else(|| self.not_found())
    }

    /// Returns itself if its parent exists.
    pub(super) fn in_parent(self) -> Result<Self, Error> {
        if self.missing_below.is_empty() { Ok(self) } else { Err(self.not_found()) }
    }

    pub(super) fn not_found(&self) -> Error {
        Error::NotFound { target: self.target.clone() }
    }

    pub(super) fn key(&self) -> Bytes {
        keys::entry(self.parent, &self.name)
    }
}

/// A step of a path.
enum Step {
    Down(Name),
    Up,
}

/// Resolves a target; `last` only applies to paths. The commit of `tx` requires the same result.
pub(super) async fn resolve(
    tx: &mut Transaction,
    target: &Target,
    last: Last,
) -> Result<Place, Error> {
    match target {
        Target::Path(path) => resolve_path(tx, path, last).await,
        Target::Inode(inode) => Ok(Place::Inode(*inode)),
        Target::Child { parent, name } => child(tx, *parent, name).await.map(Place::Named),
    }
}

/// Looks up a name in a directory.
async fn child(tx: &mut Transaction, parent: InodeId, name: &Name) -> Result<Named, Error> {
    let record = tx.get::<Inode>(&keys::inode(parent)).await?.ok_or(Error::Stale(parent))?;
    let not_a_directory = || Error::NotADirectory { target: parent.into() };
    let directory = record.directory().ok_or_else(not_a_directory)?;
    Ok(Named {
        target: Target::child(parent, name),
        parent,
        name: name.clone(),
        entry: tx.get(&keys::entry(parent, name)).await?,
        is_parent_linked: directory.link == Link::Linked,
        missing_below: Vec::new(),
    })
}

async fn resolve_path(tx: &mut Transaction, path: &DfsPath, last: Last) -> Result<Place, Error> {
    let mut walk = PathWalk {
        path,
        steps: path.names().map(Step::Down).collect(),
        above: vec![(InodeId::ROOT, None)],
        seen: Vec::new(),
        symlinks: 0,
        taken: 0,
    };
    let place = walk.walk(tx, last).await?;
    guard(tx, walk.seen).await?;
    Ok(place)
}

/// Makes the commit depend on the entries that were looked up.
async fn guard(
    tx: &mut Transaction,
    mut seen: Vec<(Bytes, Option<Revision>)>,
) -> Result<(), Error> {
    if seen.len() > GUARDED_MAX {
        let names = tx.peek_versioned::<crate::records::setting::Mark>(&keys::NAMES).await?;
        tx.expect(keys::NAMES, names.map(|(_, version)| version));
        // The end of the path can be a file, which the key of names does not cover.
        seen.drain(..seen.len() - 1);
    }
    for (key, version) in seen {
        tx.expect(key, version);
    }
    Ok(())
}

struct PathWalk<'a> {
    path: &'a DfsPath,
    steps: VecDeque<Step>,
    /// Directories from the root down, each with its name.
    above: Vec<(InodeId, Option<Name>)>,
    seen: Vec<(Bytes, Option<Revision>)>,
    symlinks: u32,
    taken: usize,
}

impl PathWalk<'_> {
    async fn walk(&mut self, tx: &Transaction, last: Last) -> Result<Place, Error> {
        while let Some(step) = self.steps.pop_front() {
            self.taken += 1;
            if self.taken > STEPS_MAX {
                return Err(self.too_many_symlinks());
            }
            let Step::Down(name) = step else {
                if self.above.len() > 1 {
                    self.above.pop();
                }
                continue;
            };
            let key = keys::entry(self.here(), &name);
            let found = tx.peek_versioned::<Entry>(&key).await?;
            self.seen.push((key, found.as_ref().map(|(_, version)| *version)));
            let is_last = self.steps.is_empty();
            match found.map(|(entry, _)| entry) {
                None => return self.missing(name).map(Place::Named),
                Some(entry) if entry.kind == FileKind::Symlink => {
                    if is_last && last == Last::Keep {
                        return Ok(Place::Named(self.named(name, Some(entry), Vec::new())));
                    }
                    self.follow(tx, entry).await?;
                }
                Some(entry) if entry.kind == FileKind::Directory => {
                    self.above.push((entry.inode, Some(name)));
                }
                Some(entry) if is_last => {
                    return Ok(Place::Named(self.named(name, Some(entry), Vec::new())));
                }
                Some(_) => return Err(Error::NotADirectory { target: self.path_of(&name).into() }),
            }
        }
        Ok(self.directory_reached())
    }

    fn here(&self) -> InodeId {
        self.above.last().map_or(InodeId::ROOT, |(inode, _)| *inode)
    }

    /// Ends the path at the current directory.
    fn directory_reached(&mut self) -> Place {
        let inode = self.here();
        match self.above.pop() {
            Some((_, Some(name))) => {
                let entry = Entry::new(inode, FileKind::Directory);
                Place::Named(self.named(name, Some(entry), Vec::new()))
            }
            _ => Place::Root,
        }
    }

    fn named(&self, name: Name, entry: Option<Entry>, missing_below: Vec<Name>) -> Named {
        Named {
            target: self.path_of(&name).into(),
            parent: self.here(),
            name,
            entry,
            is_parent_linked: true,
            missing_below,
        }
    }

    fn missing(&mut self, name: Name) -> Result<Named, Error> {
        let mut below = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Down(name) => below.push(name),
                // A missing directory has no parent.
                Step::Up => return Err(Error::NotFound { target: self.path_of(&name).into() }),
            }
        }
        Ok(self.named(name, None, below))
    }

    async fn follow(&mut self, tx: &Transaction, entry: Entry) -> Result<(), Error> {
        self.symlinks += 1;
        if self.symlinks > SYMLINKS_MAX {
            return Err(self.too_many_symlinks());
        }
        let key = keys::inode(entry.inode);
        let Some(Inode { content: Content::Symlink { target }, .. }) = tx.peek(&key).await? else {
            return Err(Error::Damaged { key: keys::show(&key), what: "not a symlink" });
        };
        if target.starts_with(b"/") {
            self.above.truncate(1);
        }
        let bad = |source| Error::BadSymlink { path: self.path.clone(), source };
        let steps = steps_of(&target).map_err(bad)?;
        steps.into_iter().rev().for_each(|step| self.steps.push_front(step));
        Ok(())
    }

    fn too_many_symlinks(&self) -> Error {
        Error::TooManySymlinks { path: self.path.clone(), max: SYMLINKS_MAX }
    }

    /// Returns the path of `name` here, without symlinks; the requested path if that is too long.
    fn path_of(&self, name: &Name) -> DfsPath {
        let names = self.above.iter().filter_map(|(_, name)| name.as_ref());
        let path = names.chain([name]).try_fold(DfsPath::root(), |path, name| path.join(name));
        path.unwrap_or_else(|_| self.path.clone())
    }
}

impl Transaction {
    /// Returns whether a directory is `ancestor` or below it. Holds at a commit that writes
    /// [`keys::MOVES`], as each change of a directory's parent does.
    pub(super) async fn lies_within(
        &self,
        directory: InodeId,
        ancestor: InodeId,
    ) -> Result<bool, Error> {
        let mut here = directory;
        for _ in 0..DEPTH_MAX {
            if here == ancestor {
                return Ok(true);
            }
            if here == InodeId::ROOT {
                return Ok(false);
            }
            // The parent of a deleted directory may be gone.
            let Some(found) = self.directory(here).await? else { return Ok(false) };
            here = found.parent;
        }
        Err(Error::TooDeep { directory, max: DEPTH_MAX })
    }
}

fn steps_of(target: &Bytes) -> Result<Vec<Step>, PathError> {
    let mut steps = Vec::new();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => steps.push(Step::Up),
            name => steps.push(Step::Down(Name::new(target.slice_ref(name))?)),
        }
    }
    Ok(steps)
}

//! From a path to what it stands for.

use std::collections::VecDeque;

use bytes::Bytes;
use dfs_types::{DfsPath, FileKind, InodeId, Name, PathError, Revision};

use super::transaction::Transaction;
use crate::records::inode::{Content, Entry, Inode};
use crate::{Error, keys};

/// Symlinks that are followed on the way, as many as Linux does.
const SYMLINKS_MAX: u32 = 40;
/// Names that are looked up at most: those of the longest path, and as many of symlinks' targets.
const STEPS_MAX: usize = 8_192;
/// Entries on the way that a change names one by one in its conditions. A longer way is guarded
/// by [`keys::NAMES`], which any lost name of a directory or symlink changes.
const GUARDED_MAX: usize = 40;

/// Whether a symlink at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Root,
    Named(Named),
}

/// A place in a directory, taken or free.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// As it was asked for, or up to the first name that is missing.
    pub(super) path: DfsPath,
    pub(super) parent: InodeId,
    pub(super) name: Name,
    pub(super) entry: Option<Entry>,
    /// The directories above, from the root down to `parent`.
    pub(super) above: Vec<InodeId>,
    /// Names of the path below this one, when this one is missing.
    pub(super) missing_below: Vec<Name>,
}

impl Place {
    /// The inode there.
    pub(super) fn inode(&self) -> Result<InodeId, Error> {
        match self {
            Self::Root => Ok(InodeId::ROOT),
            Self::Named(named) => named.taken().map(|entry| entry.inode),
        }
    }

    /// A place that has a parent.
    pub(super) fn named(self) -> Result<Named, Error> {
        match self {
            Self::Root => Err(Error::IsRoot),
            Self::Named(named) => Ok(named),
        }
    }
}

impl Named {
    /// What is there.
    pub(super) fn taken(&self) -> Result<Entry, Error> {
        self.entry.ok_or_else(|| self.not_found())
    }

    /// The same, if its parent is there.
    pub(super) fn in_parent(self) -> Result<Self, Error> {
        if self.missing_below.is_empty() { Ok(self) } else { Err(self.not_found()) }
    }

    pub(super) fn not_found(&self) -> Error {
        Error::NotFound { path: self.path.clone() }
    }

    pub(super) fn key(&self) -> Bytes {
        keys::entry(self.parent, &self.name)
    }
}

/// A step of a way.
enum Step {
    Down(Name),
    Up,
}

/// Finds where `path` leads. A commit of `tx` takes place only if it still leads there.
pub(super) async fn resolve(
    tx: &mut Transaction,
    path: &DfsPath,
    last: Last,
) -> Result<Place, Error> {
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
        let names = tx.look::<crate::records::setting::Mark>(&keys::NAMES).await?;
        tx.expect(keys::NAMES, names.map(|(_, version)| version));
        // What the path ends with can also be a file, which the key of names says nothing of.
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
            let found = tx.look::<Entry>(&key).await?;
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
                Some(_) => return Err(Error::NotADirectory { path: self.path_of(&name) }),
            }
        }
        Ok(self.directory_reached())
    }

    fn here(&self) -> InodeId {
        self.above.last().map_or(InodeId::ROOT, |(inode, _)| *inode)
    }

    /// The way ends in the directory it stands in.
    fn directory_reached(&mut self) -> Place {
        let inode = self.here();
        match self.above.pop() {
            Some((_, Some(name))) => {
                let entry = Entry { inode, kind: FileKind::Directory };
                Place::Named(self.named(name, Some(entry), Vec::new()))
            }
            _ => Place::Root,
        }
    }

    fn named(&self, name: Name, entry: Option<Entry>, missing_below: Vec<Name>) -> Named {
        Named {
            path: self.path_of(&name),
            parent: self.here(),
            name,
            entry,
            above: self.above.iter().map(|(inode, _)| *inode).collect(),
            missing_below,
        }
    }

    fn missing(&mut self, name: Name) -> Result<Named, Error> {
        let mut below = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Down(name) => below.push(name),
                // Nothing can be above what is not there.
                Step::Up => return Err(Error::NotFound { path: self.path_of(&name) }),
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
            return Err(Error::Damaged { key: keys::show(&key), what: "no symlink" });
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

    /// The path of `name` here, without symlinks; what was asked for if that is too long.
    fn path_of(&self, name: &Name) -> DfsPath {
        let names = self.above.iter().filter_map(|(_, name)| name.as_ref());
        let path = names.chain([name]).try_fold(DfsPath::root(), |path, name| path.join(name));
        path.unwrap_or_else(|_| self.path.clone())
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

//! The toy model: a tree in memory, with calls applied one after the other.

use std::collections::{BTreeMap, VecDeque};

use dfs_types::{ErrorCode, FileKind};

use super::calls::{Answer, At, Call, Demand, Mark, Marks, Seen, Slot};

/// Index in [`Tree::nodes`].
type Id = usize;

const ROOT: Id = 0;

/// State of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// All nodes, including deleted ones, which plans may still name.
    nodes: Vec<Node>,
    /// Location of the future file, by plan.
    plans: BTreeMap<u32, (Id, String)>,
    /// Newest call and its outcome, by slot.
    kept: BTreeMap<u32, (u64, Outcome)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    /// Inode number, once a reply has revealed it.
    inode: Option<u64>,
    /// Directory it was last put into.
    parent: Id,
    content: Content,
    xattrs: Marks,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    File { size: u64 },
    Symlink { target: String },
    Directory { entries: BTreeMap<String, Id>, is_deleted: bool },
}

/// A reply of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Planned,
    Until(bool),
    /// With the number of its extended attributes at that time.
    Node(Id, usize),
    Listed(BTreeMap<String, Id>),
    Marked(Marks),
    Failed(ErrorCode),
}

/// An outcome, and whether it changed anything.
type Applied = Result<(Outcome, bool), ErrorCode>;

/// Where a path leads: the root, or a name in a directory.
enum Place {
    Root,
    Named(Named),
}

struct Named {
    parent: Id,
    name: String,
    entry: Option<Id>,
    /// Names of the path after a missing one.
    missing_below: Vec<String>,
}

impl Place {
    fn named(self) -> Result<Named, ErrorCode> {
        match self {
            Self::Root => Err(ErrorCode::InvalidArgument),
            Self::Named(named) => Ok(named),
        }
    }

    fn node(&self) -> Result<Id, ErrorCode> {
        match self {
            Self::Root => Ok(ROOT),
            Self::Named(named) => named.entry.ok_or(ErrorCode::NotFound),
        }
    }
}

impl Named {
    fn in_parent(self) -> Result<Self, ErrorCode> {
        if self.missing_below.is_empty() { Ok(self) } else { Err(ErrorCode::NotFound) }
    }
}

fn empty_directory() -> Content {
    Content::Directory { entries: BTreeMap::new(), is_deleted: false }
}

impl Tree {
    /// Returns a model with only the root, which has number 1.
    pub(super) fn new() -> Self {
        let (content, xattrs) = (empty_directory(), Marks::new());
        let root = Node { inode: Some(1), parent: ROOT, content, xattrs };
        Self { nodes: vec![root], plans: BTreeMap::new(), kept: BTreeMap::new() }
    }

    /// Applies a call.
    pub(super) fn apply(&mut self, call: &Call) -> Outcome {
        if let Some(Slot { number, sequence }) = call.slot()
            && let Some((newest, outcome)) = self.kept.get(&number)
        {
            if *newest == sequence {
                return outcome.clone();
            }
            if *newest > sequence {
                return Outcome::Failed(ErrorCode::Stale);
            }
        }
        match self.execute(call) {
            Ok((outcome, is_change)) => {
                if let Some(slot) = call.slot().filter(|_| is_change) {
                    self.kept.insert(slot.number, (slot.sequence, outcome.clone()));
                }
                outcome
            }
            Err(code) => Outcome::Failed(code),
        }
    }

    /// Returns whether a reply matches the outcome of the model. Learns the numbers of nodes.
    pub(super) fn agrees(&mut self, outcome: &Outcome, answer: &Answer) -> bool {
        match (outcome, answer) {
            (Outcome::Done, Answer::Done) | (Outcome::Planned, Answer::Planned) => true,
            (Outcome::Until(ours), Answer::Until(theirs)) => ours == theirs,
            (Outcome::Failed(ours), Answer::Failed(theirs)) => ours == theirs,
            (Outcome::Marked(ours), Answer::Marked(theirs)) => ours == theirs,
            (Outcome::Node(id, xattrs), Answer::Node(seen)) => self.is(*id, *xattrs, seen),
            (Outcome::Listed(ours), Answer::Listed(theirs)) => {
                ours.len() == theirs.len()
                    && ours.iter().zip(theirs).all(|((name, id), (seen_name, seen))| {
                        name == seen_name && self.is(*id, self.nodes[*id].xattrs.len(), seen)
                    })
            }
            _ => false,
        }
    }

    fn is(&mut self, id: Id, xattrs: usize, seen: &Seen) -> bool {
        let inode = Some(seen.inode);
        if self.nodes[id].inode.is_none() && self.nodes.iter().all(|node| node.inode != inode) {
            self.nodes[id].inode = inode;
        }
        let node = &self.nodes[id];
        let content = match &node.content {
            Content::File { size } => (FileKind::File, *size, ""),
            Content::Symlink { target } => (FileKind::Symlink, target.len() as u64, &target[..]),
            Content::Directory { .. } => (FileKind::Directory, 0, ""),
        };
        let is_same = content == (seen.kind, seen.size, &seen.target) && xattrs == seen.xattrs;
        node.inode == inode && is_same
    }

    fn execute(&mut self, call: &Call) -> Applied {
        match call {
            Call::MakeDirectory { at, parents, .. } => self.make_directory(at, *parents),
            Call::MakeSymlink { at, target, replace, .. } => {
                self.make_symlink(at, target, *replace)
            }
            Call::Rename { from, to, demand, exchange, .. } => {
                self.rename(from, to, *demand, *exchange)
            }
            Call::Delete { at, recursive, now, demand, .. } => {
                self.delete(at, *recursive, *now, *demand)
            }
            Call::Plan { at, plan, .. } => self.plan(at, *plan),
            Call::Confirm { plan, size, demand, xattrs, .. } => {
                self.confirm(*plan, *size, *demand, xattrs)
            }
            Call::SetXattr { at, name, mark, demand, .. } => {
                self.set_xattr(at, name, *mark, *demand)
            }
            Call::RemoveXattr { at, name, .. } => {
                let id = self.resolve(at, true)?.node()?;
                self.nodes[id].xattrs.remove(*name).ok_or(ErrorCode::NotFound)?;
                Ok((self.node(id), true))
            }
            Call::Xattrs { at } => {
                let id = self.resolve(at, true)?.node()?;
                Ok((Outcome::Marked(self.nodes[id].xattrs.clone()), false))
            }
            Call::Stat { at, follow } => Ok((self.node(self.resolve(at, *follow)?.node()?), false)),
            Call::List { at } => {
                let id = self.resolve(at, true)?.node()?;
                let entries = self.entries(id).ok_or(ErrorCode::NotADirectory)?;
                Ok((Outcome::Listed(entries.clone()), false))
            }
        }
    }

    fn make_directory(&mut self, at: &At, parents: bool) -> Applied {
        let named = match self.resolve(at, parents)? {
            Place::Named(named @ Named { entry: None, .. }) => named,
            taken => {
                let id = taken.node()?;
                let is_enough = parents && self.is_directory(id);
                return is_enough.then_some((self.node(id), false)).ok_or(ErrorCode::AlreadyExists);
            }
        };
        let named = if parents { named } else { named.in_parent()? };
        let named = self.changeable(named)?;
        let mut id = named.parent;
        for name in std::iter::once(&named.name).chain(&named.missing_below) {
            id = self.put(id, name, empty_directory());
        }
        Ok((self.node(id), true))
    }

    fn make_symlink(&mut self, at: &At, target: &str, replace: bool) -> Applied {
        let Place::Named(named) = self.resolve(at, false)? else {
            return Err(ErrorCode::AlreadyExists);
        };
        let named = self.changeable(named)?.in_parent()?;
        if let Some(entry) = named.entry {
            if !replace {
                return Err(ErrorCode::AlreadyExists);
            }
            if self.is_directory(entry) {
                return Err(ErrorCode::IsADirectory);
            }
        }
        let content = Content::Symlink { target: target.to_owned() };
        let id = self.put(named.parent, &named.name, content);
        Ok((self.node(id), true))
    }

    fn rename(&mut self, from: &At, to: &At, demand: Option<Demand>, exchange: bool) -> Applied {
        let from = self.resolve(from, false)?.named()?;
        let from = self.changeable(from)?;
        let moved = from.entry.ok_or(ErrorCode::NotFound)?;
        let to = self.resolve(to, false)?.named()?;
        let to = self.changeable(to)?.in_parent()?;
        self.refuse_cycle(moved, from.parent, to.parent)?;
        self.require(demand, to.entry)?;
        if exchange {
            let other = to.entry.ok_or(ErrorCode::NotFound)?;
            if other == moved {
                return Ok((Outcome::Done, false));
            }
            self.refuse_cycle(other, to.parent, from.parent)?;
            self.name(from.parent, &from.name, other);
            self.name(to.parent, &to.name, moved);
            return Ok((Outcome::Done, true));
        }
        if let Some(replaced) = to.entry {
            if replaced == moved {
                return Ok((Outcome::Done, false));
            }
            match (self.is_directory(moved), self.entries(replaced)) {
                (true, None) => return Err(ErrorCode::NotADirectory),
                (false, Some(_)) => return Err(ErrorCode::IsADirectory),
                (true, Some(entries)) if !entries.is_empty() => return Err(ErrorCode::NotEmpty),
                _ => self.unlink(replaced),
            }
        }
        self.entries_mut(from.parent).remove(&from.name);
        self.name(to.parent, &to.name, moved);
        Ok((Outcome::Done, true))
    }

    /// Refuses to put a directory inside itself. A deleted directory still counts as inside its
    /// former parent.
    fn refuse_cycle(&self, moved: Id, old: Id, new: Id) -> Result<(), ErrorCode> {
        if old == new || !self.is_directory(moved) {
            return Ok(());
        }
        let mut here = new;
        while here != moved {
            if here == ROOT {
                return Ok(());
            }
            here = self.nodes[here].parent;
        }
        Err(ErrorCode::WouldCycle)
    }

    fn require(&self, demand: Option<Demand>, entry: Option<Id>) -> Result<(), ErrorCode> {
        match (demand, entry) {
            (Some(Demand::Absent), Some(_)) => Err(ErrorCode::AlreadyExists),
            (Some(Demand::Inode(_)), None) => Err(ErrorCode::NotFound),
            (Some(Demand::Inode(inode)), Some(id)) if self.nodes[id].inode != Some(inode) => {
                Err(ErrorCode::Stale)
            }
            _ => Ok(()),
        }
    }

    /// Refuses changes in a deleted directory.
    fn changeable(&self, named: Named) -> Result<Named, ErrorCode> {
        match self.nodes[named.parent].content {
            Content::Directory { is_deleted: true, .. } => Err(ErrorCode::NotFound),
            _ => Ok(named),
        }
    }

    fn delete(&mut self, at: &At, recursive: bool, now: bool, demand: Option<Demand>) -> Applied {
        let named = self.resolve(at, false)?.named()?;
        let named = self.changeable(named)?;
        let entry = named.entry.ok_or(ErrorCode::NotFound)?;
        self.require(demand, Some(entry))?;
        if !recursive && self.entries(entry).is_some_and(|entries| !entries.is_empty()) {
            return Err(ErrorCode::NotEmpty);
        }
        self.unlink(entry);
        self.entries_mut(named.parent).remove(&named.name);
        Ok((Outcome::Until(!now), true))
    }

    fn plan(&mut self, at: &At, plan: u32) -> Applied {
        let Place::Named(named) = self.resolve(at, true)? else {
            return Err(ErrorCode::IsADirectory);
        };
        let named = self.changeable(named)?.in_parent()?;
        if named.entry.is_some_and(|entry| self.is_directory(entry)) {
            return Err(ErrorCode::IsADirectory);
        }
        self.plans.insert(plan, (named.parent, named.name));
        Ok((Outcome::Planned, false))
    }

    /// Puts the file into the directory it was planned for, wherever that is by now.
    fn confirm(&mut self, plan: u32, size: u64, demand: Option<Demand>, xattrs: &Marks) -> Applied {
        // A confirm begins only after its plan has ended.
        let (parent, name) = self.plans[&plan].clone();
        if matches!(self.nodes[parent].content, Content::Directory { is_deleted: true, .. }) {
            return Err(ErrorCode::NotFound);
        }
        let entry = self.entries_mut(parent).get(&name).copied();
        if entry.is_some_and(|entry| self.is_directory(entry)) {
            return Err(ErrorCode::IsADirectory);
        }
        self.require(demand, entry)?;
        let id = self.put(parent, &name, Content::File { size });
        self.nodes[id].xattrs.clone_from(xattrs);
        Ok((self.node(id), true))
    }

    /// Sets an attribute of a file or directory; `demand` requires that it exists, or that it does
    /// not.
    fn set_xattr(&mut self, at: &At, name: &str, mark: Mark, demand: Option<bool>) -> Applied {
        let id = self.resolve(at, true)?.node()?;
        if matches!(self.nodes[id].content, Content::Symlink { .. }) {
            return Err(ErrorCode::InvalidArgument);
        }
        let xattrs = &mut self.nodes[id].xattrs;
        match (demand, xattrs.contains_key(name)) {
            (Some(false), true) => return Err(ErrorCode::AlreadyExists),
            (Some(true), false) => return Err(ErrorCode::NotFound),
            _ => xattrs.insert(name.to_owned(), mark),
        };
        Ok((self.node(id), true))
    }

    fn node(&self, id: Id) -> Outcome {
        Outcome::Node(id, self.nodes[id].xattrs.len())
    }

    /// Puts a new node into a directory, replacing the old one.
    fn put(&mut self, parent: Id, name: &str, content: Content) -> Id {
        let id = self.nodes.len();
        self.nodes.push(Node { inode: None, parent, content, xattrs: Marks::new() });
        self.name(parent, name, id);
        id
    }

    fn name(&mut self, parent: Id, name: &str, id: Id) {
        self.entries_mut(parent).insert(name.to_owned(), id);
        self.nodes[id].parent = parent;
    }

    fn unlink(&mut self, id: Id) {
        if let Content::Directory { is_deleted, .. } = &mut self.nodes[id].content {
            *is_deleted = true;
        }
    }

    fn is_directory(&self, id: Id) -> bool {
        self.entries(id).is_some()
    }

    fn entries(&self, id: Id) -> Option<&BTreeMap<String, Id>> {
        match &self.nodes[id].content {
            Content::Directory { entries, .. } => Some(entries),
            _ => None,
        }
    }

    fn entries_mut(&mut self, id: Id) -> &mut BTreeMap<String, Id> {
        match &mut self.nodes[id].content {
            Content::Directory { entries, .. } => entries,
            other => panic!("{other:?} has no entries"),
        }
    }

    fn resolve(&self, at: &At, follow: bool) -> Result<Place, ErrorCode> {
        match at {
            At::Path(path) => self.walk(path, follow),
            At::Child(inode, name) => {
                // A client knows an inode only from an earlier reply.
                let parent = self.nodes.iter().position(|node| node.inode == Some(*inode));
                let parent = parent.ok_or(ErrorCode::Internal)?;
                let entry = self.entries(parent).and_then(|entries| entries.get(name)).copied();
                let (name, missing_below) = (name.clone(), Vec::new());
                Ok(Place::Named(Named { parent, name, entry, missing_below }))
            }
        }
    }

    /// Walks a path. Follows symlinks on the path, and one at its end if `follow` is set.
    fn walk(&self, path: &str, follow: bool) -> Result<Place, ErrorCode> {
        const SYMLINKS_MAX: u32 = 40;
        let mut steps: VecDeque<&str> = steps(path).collect();
        let mut stack: Vec<(Id, &str)> = vec![(ROOT, "")];
        let mut symlinks = 0;
        while let Some(step) = steps.pop_front() {
            if step == ".." {
                stack.truncate((stack.len() - 1).max(1));
                continue;
            }
            let parent = stack[stack.len() - 1].0;
            let entry = self.entries(parent).and_then(|entries| entries.get(step)).copied();
            let named = |entry, missing_below| {
                let name = step.to_owned();
                Place::Named(Named { parent, name, entry, missing_below })
            };
            let Some(id) = entry else {
                if steps.contains(&"..") {
                    return Err(ErrorCode::NotFound);
                }
                return Ok(named(None, steps.into_iter().map(str::to_owned).collect()));
            };
            match &self.nodes[id].content {
                Content::Directory { .. } => stack.push((id, step)),
                Content::Symlink { target } if follow || !steps.is_empty() => {
                    symlinks += 1;
                    if symlinks > SYMLINKS_MAX {
                        return Err(ErrorCode::InvalidArgument);
                    }
                    if target.starts_with('/') {
                        stack.truncate(1);
                    }
                    self::steps(target).rev().for_each(|step| steps.push_front(step));
                }
                _ if steps.is_empty() => return Ok(named(Some(id), Vec::new())),
                _ => return Err(ErrorCode::NotADirectory),
            }
        }
        match stack.pop() {
            Some((id, name)) if !stack.is_empty() => Ok(Place::Named(Named {
                parent: stack[stack.len() - 1].0,
                name: name.to_owned(),
                entry: Some(id),
                missing_below: Vec::new(),
            })),
            _ => Ok(Place::Root),
        }
    }
}

fn steps(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|step| !step.is_empty())
}

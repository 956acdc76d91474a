//! Calls and their replies.

use std::collections::BTreeMap;
use std::fmt;

use dfs_types::{ErrorCode, FileKind, Random};

/// A call with all its inputs.
#[derive(Debug, Clone)]
pub(super) enum Call {
    MakeDirectory { at: At, parents: bool, slot: Option<Slot> },
    MakeSymlink { at: At, target: String, replace: bool, slot: Option<Slot> },
    Rename { from: At, to: At, demand: Option<Demand>, exchange: bool, slot: Option<Slot> },
    Delete { at: At, recursive: bool, now: bool, demand: Option<Demand>, slot: Option<Slot> },
    Plan { at: At, size: u64, plan: u32 },
    Confirm { plan: u32, size: u64, demand: Option<Demand>, xattrs: Marks, slot: Option<Slot> },
    SetXattr { at: At, name: &'static str, mark: Mark, demand: Option<bool>, slot: Option<Slot> },
    RemoveXattr { at: At, name: &'static str, slot: Option<Slot> },
    Xattrs { at: At },
    Stat { at: At, follow: bool },
    List { at: At },
}

/// Names of extended attributes; few, so that calls collide.
const XATTRS: &[&str] = &["user.a", "user.b"];

/// Distinguishes a value of an extended attribute from others.
pub(super) type Mark = u32;

/// Extended attributes by name.
pub(super) type Marks = BTreeMap<String, Mark>;

/// Target of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Path(String),
    /// A name in the directory of that number.
    Child(u64, String),
}

/// Precondition on a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    Absent,
    Inode(u64),
}

/// Slot that makes a call repeatable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) sequence: u64,
}

/// Answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Planned,
    /// True if it can be restored.
    Until(bool),
    Node(Seen),
    Listed(Vec<(String, Seen)>),
    Marked(Marks),
    Failed(ErrorCode),
}

/// An inode as described in a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) inode: u64,
    pub(super) kind: FileKind,
    pub(super) size: u64,
    pub(super) target: String,
    /// Number of its extended attributes.
    pub(super) xattrs: usize,
}

/// A call of a history. Ticks count the beginnings and ends of all calls.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) call: Call,
    pub(super) answer: Answer,
    pub(super) called: u32,
    pub(super) returned: u32,
}

impl Call {
    pub(super) fn slot(&self) -> Option<Slot> {
        match self {
            Self::MakeDirectory { slot, .. }
            | Self::MakeSymlink { slot, .. }
            | Self::Rename { slot, .. }
            | Self::Delete { slot, .. }
            | Self::Confirm { slot, .. }
            | Self::SetXattr { slot, .. }
            | Self::RemoveXattr { slot, .. } => *slot,
            Self::Plan { .. } | Self::Stat { .. } | Self::List { .. } | Self::Xattrs { .. } => None,
        }
    }

    /// Returns a random call. `Plan` represents a whole put of a file.
    pub(super) fn any(random: &dyn Random, slot: Slot, plan: u32, known: &Known) -> Self {
        let is = |percent| random.below(100) < percent;
        let at = || known.any_place(random);
        // A client starts with calls that create something, so that later ones find something.
        match random.below(if slot.sequence < 2 { 50 } else { 100 }) {
            0..20 => Self::MakeDirectory { at: at(), parents: is(40), slot: Some(slot) },
            20..30 => {
                let target = *pick(random, &["/a", "/b", "b", "a/b", "..", "../a", "/a/../b"]);
                let target = target.to_owned();
                Self::MakeSymlink { at: at(), target, replace: is(30), slot: Some(slot) }
            }
            30..50 => {
                let size = if is(50) { 0 } else { 1 + random.below(1_000) };
                Self::Plan { at: at(), size, plan }
            }
            50..66 => {
                let (from, to, demand) = (at(), at(), known.any_demand(random));
                Self::Rename { from, to, demand, exchange: is(30), slot: Some(slot) }
            }
            66..76 => {
                let (at, demand) = (at(), known.any_demand(random));
                Self::Delete { at, recursive: is(30), now: is(20), demand, slot: Some(slot) }
            }
            76..83 => {
                let demand = is(30).then(|| is(50));
                let (name, mark) = (*pick(random, XATTRS), any_mark(random));
                Self::SetXattr { at: at(), name, mark, demand, slot: Some(slot) }
            }
            83..88 => {
                let name = *pick(random, XATTRS);
                Self::RemoveXattr { at: at(), name, slot: Some(slot) }
            }
            88..91 => Self::Xattrs { at: at() },
            91..95 => Self::Stat { at: at(), follow: is(70) },
            _ => Self::List { at: if is(50) { At::Path("/".to_owned()) } else { at() } },
        }
    }
}

/// Inodes that a client has seen in replies.
#[derive(Debug, Default)]
pub(super) struct Known {
    directories: Vec<u64>,
    others: Vec<u64>,
}

impl Known {
    /// Adds the inodes of a reply.
    pub(super) fn learn(&mut self, answer: &Answer) {
        let seen: Vec<&Seen> = match answer {
            Answer::Node(seen) => vec![seen],
            Answer::Listed(entries) => entries.iter().map(|(_, seen)| seen).collect(),
            _ => Vec::new(),
        };
        for seen in seen {
            let is_directory = seen.kind == FileKind::Directory;
            let list = if is_directory { &mut self.directories } else { &mut self.others };
            if !list.contains(&seen.inode) {
                list.push(seen.inode);
            }
        }
    }

    fn any_place(&self, random: &dyn Random) -> At {
        if self.directories.is_empty() || random.below(100) < 60 {
            return At::Path(any_path(random));
        }
        let parent = *pick(random, &self.directories);
        At::Child(parent, (*pick(random, &["a", "b"])).to_owned())
    }

    pub(super) fn any_demand(&self, random: &dyn Random) -> Option<Demand> {
        let all: Vec<u64> = self.directories.iter().chain(&self.others).copied().collect();
        match random.below(10) {
            0 | 1 => Some(Demand::Absent),
            2 | 3 if !all.is_empty() => Some(Demand::Inode(*pick(random, &all))),
            _ => None,
        }
    }
}

/// Returns random extended attributes for a new file.
pub(super) fn any_marks(random: &dyn Random) -> Marks {
    let given = XATTRS.iter().filter(|_| random.below(2) == 0);
    given.map(|name| ((*name).to_owned(), any_mark(random))).collect()
}

fn any_mark(random: &dyn Random) -> Mark {
    random.below(1_000) as Mark
}

fn pick<'a, T>(random: &dyn Random, choices: &'a [T]) -> &'a T {
    &choices[random.below(choices.len() as u64) as usize]
}

/// Returns a random path, one of few and short ones, so that calls collide.
fn any_path(random: &dyn Random) -> String {
    if random.below(50) == 0 {
        return "/".to_owned();
    }
    let depth = *pick(random, &[1, 1, 1, 1, 2, 2, 2, 3]);
    (0..depth).map(|_| *pick(random, &["/a", "/b"])).collect()
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, answer, called, returned } = self;
        write!(f, "{called:>3} to {returned:>3}: {call:?} -> {answer:?}")
    }
}

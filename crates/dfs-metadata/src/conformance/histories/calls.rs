//! Calls, and what was answered.

use std::fmt;

use dfs_types::{ErrorCode, FileKind, Random};

/// A call, with all that decides what it does.
#[derive(Debug, Clone)]
pub(super) enum Call {
    MakeDirectory { path: String, parents: bool, slot: Option<Slot> },
    MakeSymlink { path: String, target: String, replace: bool, slot: Option<Slot> },
    Rename { from: String, to: String, no_replace: bool, slot: Option<Slot> },
    Delete { path: String, recursive: bool, now: bool, slot: Option<Slot> },
    Plan { path: String, size: u64, plan: u32 },
    Confirm { plan: u32, size: u64, create_only: bool, slot: Option<Slot> },
    Stat { path: String, follow: bool },
    List { path: String },
}

/// Makes a call safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) sequence: u64,
}

/// What a call answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Planned,
    /// Whether it can be restored.
    Until(bool),
    Node(Seen),
    Listed(Vec<(String, Seen)>),
    Failed(ErrorCode),
}

/// An inode as it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) inode: u64,
    pub(super) kind: FileKind,
    pub(super) size: u64,
    pub(super) target: String,
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
            | Self::Confirm { slot, .. } => *slot,
            Self::Plan { .. } | Self::Stat { .. } | Self::List { .. } => None,
        }
    }

    /// Some call. `Plan` stands for the whole of putting a file.
    pub(super) fn any(random: &dyn Random, slot: Slot, plan: u32) -> Self {
        let is = |percent| random.below(100) < percent;
        // A client begins with what makes something, so that the others find something.
        match random.below(if slot.sequence < 2 { 50 } else { 100 }) {
            0..20 => {
                Self::MakeDirectory { path: any_path(random), parents: is(40), slot: Some(slot) }
            }
            20..30 => {
                let target = *pick(random, &["/a", "/b", "b", "a/b", "..", "../a", "/a/../b"]);
                let target = target.to_owned();
                let (path, replace) = (any_path(random), is(30));
                Self::MakeSymlink { path, target, replace, slot: Some(slot) }
            }
            30..50 => {
                let size = if is(50) { 0 } else { 1 + random.below(1_000) };
                Self::Plan { path: any_path(random), size, plan }
            }
            50..70 => {
                let (from, to) = (any_path(random), any_path(random));
                Self::Rename { from, to, no_replace: is(20), slot: Some(slot) }
            }
            70..85 => {
                let path = any_path(random);
                Self::Delete { path, recursive: is(30), now: is(20), slot: Some(slot) }
            }
            85..92 => Self::Stat { path: any_path(random), follow: is(70) },
            _ => {
                let path = if is(50) { "/".to_owned() } else { any_path(random) };
                Self::List { path }
            }
        }
    }
}

fn pick<'a, T>(random: &dyn Random, choices: &'a [T]) -> &'a T {
    &choices[random.below(choices.len() as u64) as usize]
}

/// Few and short ones, so that calls meet.
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

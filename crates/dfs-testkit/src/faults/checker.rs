//! Whether the history of a group can be explained.
//!
//! Groups share nothing, so each is searched alone. The search follows the beginnings and ends of
//! calls in time and keeps every state in which the calls so far may have left the group, with
//! those of the calls under way that have taken place in it ("just in time", after Lowe).

use std::collections::{BTreeMap, HashMap, HashSet};

use dfs_types::FileKind;

use super::history::{Answer, Operation, Seen, content};
use super::model::{Node, Outcome, Tree};

/// States that are kept at the same time. More come only of many calls whose outcome is unknown.
const STATES_MAX: usize = 300_000;
/// Operations shown before the one that cannot be explained.
const SHOWN: usize = 40;

/// How far a call under way has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    /// A put has found this directory.
    Planned(u32),
    Done,
}

/// One way things may have gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct State {
    tree: Tree,
    /// By index of the operation; not in here when nothing of it has happened.
    under_way: BTreeMap<usize, Phase>,
}

/// Whether every answer of the history of one group, which begins empty, is explained by some order
/// of the calls, each at some moment between its beginning and its end; a put at two, one for the
/// directory and one for the file. The error shows the history around what is not.
pub(super) fn check(history: &[Operation]) -> Result<(), String> {
    let inodes = Inodes::of(history);
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (index, operation) in history.iter().enumerate() {
        if operation.answer == Answer::Unknown && !operation.call.is_change() {
            continue;
        }
        events.push((operation.called, false, index));
        if operation.answer != Answer::Unknown {
            events.push((operation.returned, true, index));
        }
    }
    // What begins when another ends may have come first.
    events.sort_unstable();
    let mut open: Vec<usize> = Vec::new();
    let mut states = HashSet::from([State::default()]);
    for (_, is_end, index) in events {
        if is_end {
            let before = states.clone();
            states = end(history, &inodes, &open, states, index)?;
            open.retain(|other| *other != index);
            if states.is_empty() {
                return Err(told(history, &before, index));
            }
        } else {
            open.push(index);
        }
    }
    Ok(())
}

/// The states in which the operation `ended` has taken place, with the answer it got.
fn end(
    history: &[Operation],
    inodes: &Inodes,
    open: &[usize],
    states: HashSet<State>,
    ended: usize,
) -> Result<HashSet<State>, String> {
    let mut after = HashSet::new();
    let mut seen = states.clone();
    let mut left: Vec<State> = states.into_iter().collect();
    while let Some(mut state) = left.pop() {
        if state.under_way.get(&ended) == Some(&Phase::Done) {
            state.under_way.remove(&ended);
            after.insert(state);
            continue;
        }
        for index in open {
            if let Some(next) = step(&state, *index, &history[*index], inodes)
                && seen.insert(next.clone())
            {
                left.push(next);
            }
        }
        if seen.len() > STATES_MAX {
            return Err(format!("too many ways to explain {}", history[ended]));
        }
    }
    Ok(after)
}

/// What one more step of an operation makes of a state, if it may take place there.
fn step(state: &State, index: usize, operation: &Operation, inodes: &Inodes) -> Option<State> {
    let planned = match state.under_way.get(&index) {
        Some(Phase::Done) => return None,
        Some(Phase::Planned(directory)) => Some(*directory),
        None => None,
    };
    let mut next = state.clone();
    let phase = match next.tree.apply(operation.number, operation.call, planned) {
        Outcome::Planned(directory) => Phase::Planned(directory),
        outcome => inodes.agree(&outcome, &operation.answer).then_some(Phase::Done)?,
    };
    next.under_way.insert(index, phase);
    Some(next)
}

/// The inodes that operations were told they made.
struct Inodes {
    of_operation: HashMap<u32, u64>,
    known: HashSet<u64>,
}

impl Inodes {
    fn of(history: &[Operation]) -> Self {
        let made = |operation: &Operation| match operation.answer {
            Answer::Made(inode) => Some((operation.number, inode)),
            _ => None,
        };
        let of_operation: HashMap<_, _> = history.iter().filter_map(made).collect();
        let known = of_operation.values().copied().collect();
        Self { of_operation, known }
    }

    fn agree(&self, outcome: &Outcome, answer: &Answer) -> bool {
        match (outcome, answer) {
            (_, Answer::Unknown) | (Outcome::Done, Answer::Done | Answer::Made(_)) => true,
            (Outcome::Failed(ours), Answer::Failed(theirs)) => ours == theirs,
            (Outcome::Node(node), Answer::Seen(seen)) => self.is(node, seen),
            (Outcome::Node(node), Answer::Read(seen, writer)) => {
                let is_writer = |writer| matches!(node, Node::File(number) if *number == writer);
                self.is(node, seen) && writer.is_none_or(is_writer)
            }
            (Outcome::Listed(ours), Answer::Listed(theirs)) => {
                ours.len() == theirs.len()
                    && ours.iter().zip(theirs).all(|((name, node), (seen_name, seen))| {
                        name == seen_name && self.is(node, seen)
                    })
            }
            _ => false,
        }
    }

    fn is(&self, node: &Node, seen: &Seen) -> bool {
        let (number, kind, size) = match node {
            Node::File(number) => (number, FileKind::File, content(*number).len() as u64),
            Node::Directory(number, _) => (number, FileKind::Directory, 0),
        };
        // Of an operation whose outcome is unknown the number is not known, either.
        let is_inode = match self.of_operation.get(number) {
            Some(inode) => *inode == seen.inode,
            None => !self.known.contains(&seen.inode),
        };
        is_inode && (kind, size) == (seen.kind, seen.size)
    }
}

fn told(history: &[Operation], before: &HashSet<State>, index: usize) -> String {
    let operation = &history[index];
    let mut earlier: Vec<_> =
        history.iter().filter(|other| other.called <= operation.returned).collect();
    earlier.sort_by_key(|operation| operation.returned);
    let first = earlier.len().saturating_sub(SHOWN);
    let lines: Vec<_> = earlier[first..].iter().map(|operation| format!("  {operation}")).collect();
    let states: Vec<_> = before.iter().take(4).map(|state| format!("  {state:?}")).collect();
    format!(
        "no order of the calls explains\n  {operation}\nafter\n{}\nin any of {} states, as\n{}",
        lines.join("\n"),
        before.len(),
        states.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use dfs_types::ErrorCode;

    use super::*;
    use crate::faults::history::Call;

    const A: &[&str] = &["a"];
    const B: &[&str] = &["b"];
    const IN_A: &[&str] = &["a", "x"];
    const IN_B: &[&str] = &["b", "x"];
    const NOT_FOUND: Answer = Answer::Failed(ErrorCode::NotFound);

    /// Operations that are given with the ticks at which they began and ended.
    fn is_sound(calls: Vec<(u64, u64, Call, Answer)>) -> bool {
        let operation = |(number, (called, returned, call, answer))| {
            let number = 2 + number as u32;
            Operation { number, group: 0, call, answer, called, returned }
        };
        check(&calls.into_iter().enumerate().map(operation).collect::<Vec<_>>()).is_ok()
    }

    /// What is read of the operation at this place in a history.
    fn read(place: u32, inode: u64) -> Answer {
        let size = content(2 + place).len() as u64;
        Answer::Read(Seen { inode, kind: FileKind::File, size }, Some(2 + place))
    }

    #[test]
    fn an_acknowledged_file_is_seen_from_then_on() {
        let put = |from, to| (from, to, Call::Put(A), Answer::Made(7));
        assert!(is_sound(vec![put(0, 1), (2, 3, Call::Read(A), read(0, 7))]));
        assert!(!is_sound(vec![put(0, 1), (2, 3, Call::Read(A), NOT_FOUND)]));
        assert!(is_sound(vec![put(0, 3), (1, 2, Call::Read(A), NOT_FOUND)]));
        let back =
            vec![put(0, 9), (1, 2, Call::Read(A), read(0, 7)), (3, 4, Call::Read(A), NOT_FOUND)];
        assert!(!is_sound(back), "it was there before");
    }

    #[test]
    fn an_older_file_does_not_come_back() {
        let puts = |last: Answer| {
            vec![
                (0, 1, Call::Put(A), Answer::Made(7)),
                (2, 3, Call::Put(A), Answer::Made(8)),
                (4, 5, Call::Read(A), last),
            ]
        };
        assert!(is_sound(puts(read(1, 8))));
        assert!(!is_sound(puts(read(0, 7))));
        assert!(!is_sound(puts(read(1, 9))), "another inode");
    }

    #[test]
    fn what_is_unknown_may_happen_later_or_never_but_once() {
        let after = |reads: [Answer; 3]| {
            let mut calls = vec![(0, 1, Call::Put(A), Answer::Unknown)];
            let at = |place: usize| 2 + 2 * place as u64;
            calls.extend(
                reads
                    .into_iter()
                    .enumerate()
                    .map(|(place, answer)| (at(place), at(place) + 1, Call::Read(A), answer)),
            );
            is_sound(calls)
        };
        assert!(after([NOT_FOUND, NOT_FOUND, NOT_FOUND]));
        assert!(after([NOT_FOUND, read(0, 5), read(0, 5)]));
        assert!(!after([NOT_FOUND, read(0, 5), NOT_FOUND]));
    }

    #[test]
    fn a_rename_is_one_moment() {
        let moved = |first: Answer, second: Answer| {
            is_sound(vec![
                (0, 1, Call::Put(A), Answer::Made(7)),
                (2, 9, Call::Rename(A, B), Answer::Done),
                (3, 4, Call::Read(B), first),
                (5, 6, Call::Read(A), second),
            ])
        };
        assert!(moved(read(0, 7), NOT_FOUND));
        assert!(moved(NOT_FOUND, read(0, 7)));
        assert!(moved(NOT_FOUND, NOT_FOUND));
        assert!(!moved(read(0, 7), read(0, 7)), "it was moved already");
    }

    #[test]
    fn a_file_follows_the_directory_it_was_planned_for() {
        let put = |found_at: &'static [&'static str], begins| {
            is_sound(vec![
                (0, 1, Call::MakeDirectory(A), Answer::Made(7)),
                (begins, 6, Call::Put(IN_A), Answer::Made(8)),
                (3, 4, Call::Rename(A, B), Answer::Done),
                (8, 9, Call::Read(found_at), read(1, 8)),
            ])
        };
        assert!(put(IN_B, 2));
        assert!(!put(IN_B, 5), "it was not there any more when the put began");
        assert!(!put(IN_A, 2));
    }

    #[test]
    fn refusals_need_a_reason() {
        let refused = |code| is_sound(vec![(0, 1, Call::MakeDirectory(A), Answer::Failed(code))]);
        assert!(!refused(ErrorCode::AlreadyExists));
        let cycle = |to| {
            is_sound(vec![
                (0, 1, Call::MakeDirectory(A), Answer::Made(7)),
                (2, 3, Call::Rename(A, to), Answer::Failed(ErrorCode::WouldCycle)),
            ])
        };
        assert!(cycle(IN_A));
        assert!(!cycle(B));
    }
}

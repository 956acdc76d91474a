//! Linearizability check of the history of a group.
//!
//! Groups share nothing, so each is searched alone. The search follows the starts and ends of calls
//! in time and keeps every state that the calls so far may have left the group in, with the calls
//! in progress that have taken effect in it ("just in time", after Lowe).

use std::collections::{BTreeMap, HashMap, HashSet};

use dfs_types::FileKind;

use super::history::{Answer, Operation, Seen, content};
use super::model::{Node, Outcome, Tree};

/// Maximum number of states kept. Only many calls of unknown outcome need more.
const STATES_MAX: usize = 300_000;
/// Operations shown before the one that cannot be explained.
const SHOWN: usize = 40;

/// Progress of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    /// A put has found this directory.
    Planned(u32),
    Done,
}

/// One possible state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct State {
    tree: Tree,
    /// Progress by index of the operation; absent if nothing of it has happened.
    under_way: BTreeMap<usize, Phase>,
}

/// Checks that every reply in the history of one group, which starts empty, is explained by some
/// order of the calls, each taking effect at some moment between its start and its end; a put at
/// two, one for the directory and one for the file. The error shows the history around the
/// unexplained reply.
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
    // A call that starts when another ends may have come first.
    events.sort_unstable();
    let mut open: Vec<usize> = Vec::new();
    let mut states = HashSet::from([State::default()]);
    for (_, is_end, index) in events {
        if is_end {
            let before = states.clone();
            states = end(history, &inodes, &open, states, index)?;
            open.retain(|other| *other != index);
            if states.is_empty() {
                return Err(unexplained(history, &before, index));
            }
        } else {
            open.push(index);
        }
    }
    Ok(())
}

/// Returns the states in which the operation `ended` has taken effect, with its reply.
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

/// Returns the state after one more step of an operation, if the step is possible.
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

/// Inodes reported to operations that created them.
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
        // The number is unknown if the outcome of the operation is.
        let is_inode = match self.of_operation.get(number) {
            Some(inode) => *inode == seen.inode,
            None => !self.known.contains(&seen.inode),
        };
        is_inode && (kind, size) == (seen.kind, seen.size)
    }
}

fn unexplained(history: &[Operation], before: &HashSet<State>, index: usize) -> String {
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

    /// Checks operations given with the ticks of their starts and ends.
    fn is_sound(calls: Vec<(u64, u64, Call, Answer)>) -> bool {
        let operation = |(number, (called, returned, call, answer))| {
            let number = 2 + number as u32;
            Operation { number, group: 0, call, answer, called, returned }
        };
        check(&calls.into_iter().enumerate().map(operation).collect::<Vec<_>>()).is_ok()
    }

    /// Returns the reply of a read of the operation at this place in a history.
    fn read(place: u32, inode: u64) -> Answer {
        let size = content(2 + place).len() as u64;
        Answer::Read(Seen { inode, kind: FileKind::File, size }, Some(2 + place))
    }

    #[test]
    fn acknowledged_file_is_visible_from_then_on() {
        let put = |from, to| (from, to, Call::Put(A), Answer::Made(7));
        assert!(is_sound(vec![put(0, 1), (2, 3, Call::Read(A), read(0, 7))]));
        assert!(!is_sound(vec![put(0, 1), (2, 3, Call::Read(A), NOT_FOUND)]));
        assert!(is_sound(vec![put(0, 3), (1, 2, Call::Read(A), NOT_FOUND)]));
        let back =
            vec![put(0, 9), (1, 2, Call::Read(A), read(0, 7)), (3, 4, Call::Read(A), NOT_FOUND)];
        assert!(!is_sound(back), "it existed before");
    }

    #[test]
    fn older_file_does_not_come_back() {
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
    fn unknown_outcome_may_take_effect_later_or_never_but_once() {
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
    fn rename_is_atomic() {
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
    fn file_follows_the_directory_it_was_planned_for() {
        let put = |found_at: &'static [&'static str], begins| {
            is_sound(vec![
                (0, 1, Call::MakeDirectory(A), Answer::Made(7)),
                (begins, 6, Call::Put(IN_A), Answer::Made(8)),
                (3, 4, Call::Rename(A, B), Answer::Done),
                (8, 9, Call::Read(found_at), read(1, 8)),
            ])
        };
        assert!(put(IN_B, 2));
        assert!(!put(IN_B, 5), "it no longer existed when the put started");
        assert!(!put(IN_A, 2));
    }

    #[test]
    fn refusals_require_a_reason() {
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

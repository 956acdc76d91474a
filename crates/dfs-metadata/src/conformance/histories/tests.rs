//! Tests that the histories detect violations, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_types::{ErrorCode, FileKind};

use super::calls::{Answer, At, Call, Operation, Seen, Slot};
use super::linearizability::is_linearizable;
use super::run::{Run, history as history_on};
use super::shown;
use super::store::Lapse;
use crate::engine::Engine;
use crate::memory::MemoryEngine;

const HISTORIES: u64 = 1_000;

/// All kinds of calls, each with the minimum number of successes.
const KINDS: &[(&str, u32)] = &[
    ("make_directory", 300),
    ("make_symlink", 300),
    ("rename", 300),
    ("delete", 300),
    ("plan_upload", 300),
    ("confirm", 300),
    ("stat", 200),
    ("list_directory", 300),
    ("set_xattr", 300),
    ("remove_xattr", 50),
    ("list_xattrs", 150),
];

fn kind(call: &Call) -> &'static str {
    match call {
        Call::MakeDirectory { .. } => "make_directory",
        Call::MakeSymlink { .. } => "make_symlink",
        Call::Rename { .. } => "rename",
        Call::Delete { .. } => "delete",
        Call::Plan { .. } => "plan_upload",
        Call::Confirm { .. } => "confirm",
        Call::Stat { .. } => "stat",
        Call::List { .. } => "list_directory",
        Call::SetXattr { .. } => "set_xattr",
        Call::RemoveXattr { .. } => "remove_xattr",
        Call::Xattrs { .. } => "list_xattrs",
    }
}

/// Runs a history on the memory engine, determined by the seed.
fn run(seed: u64, lapse: Lapse) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let memory = MemoryEngine::new();
    let engines: [Arc<dyn Engine>; 2] = [Arc::new(memory.clone()), Arc::new(memory)];
    runtime.block_on(history_on(engines, seed, lapse))
}

/// Returns the name of a call, and how it ended.
fn ending(operation: &Operation) -> (&'static str, Option<ErrorCode>) {
    let failure = match operation.answer {
        Answer::Failed(code) => Some(code),
        _ => None,
    };
    (kind(&operation.call), failure)
}

#[test]
fn every_history_is_linearizable() {
    let mut endings = BTreeMap::new();
    let mut conflicts = 0;
    for seed in 0..HISTORIES {
        let Run { history, conflicts: of_run } = run(seed, Lapse::None);
        assert!(
            is_linearizable(&history),
            "seed {seed}: no order of these calls explains their answers:\n{}",
            shown(&history)
        );
        conflicts += of_run;
        for operation in &history {
            *endings.entry(ending(operation)).or_insert(0) += 1;
        }
    }
    // Histories without activity or concurrency would prove nothing.
    assert!(conflicts >= HISTORIES, "{conflicts} conflicts");
    for (kind, least) in KINDS {
        let times = |ending| endings.get(&(*kind, ending)).copied().unwrap_or(0);
        assert!(times(None) >= *least, "{kind}: {endings:?}");
        assert!(times(Some(ErrorCode::NotFound)) >= 10, "{kind}: {endings:?}");
    }
    for code in [
        ErrorCode::AlreadyExists,
        ErrorCode::NotADirectory,
        ErrorCode::IsADirectory,
        ErrorCode::NotEmpty,
        ErrorCode::WouldCycle,
        ErrorCode::InvalidArgument,
        ErrorCode::Stale,
    ] {
        let times: u32 =
            endings.iter().filter(|((_, ending), _)| *ending == Some(code)).map(|(_, n)| n).sum();
        assert!(times >= 20, "{code:?}: {endings:?}");
    }
}

#[test]
fn seed_determines_the_whole_history() {
    let of_seed = |seed| shown(&run(seed, Lapse::None).history);
    assert_eq!(of_seed(1), of_seed(1));
    assert_ne!(of_seed(1), of_seed(2));
}

/// A namespace on a store that skips the check of conditions must be detected.
#[test]
fn store_that_skips_conditions_is_detected() {
    for lapse in [Lapse::Versions, Lapse::Absences, Lapse::Emptiness] {
        let is_wrong = |seed| !is_linearizable(&run(seed, lapse).history);
        assert!((0..HISTORIES).any(is_wrong), "{lapse:?} went unnoticed");
    }
}

/// Builds a history of calls with the ticks at which they began and ended.
fn history(calls: Vec<(u32, u32, Call, Answer)>) -> Vec<Operation> {
    let operation = |(called, returned, call, answer)| Operation { call, answer, called, returned };
    calls.into_iter().map(operation).collect()
}

fn at(path: &str) -> At {
    At::Path(path.to_owned())
}

fn mkdir(path: &str, slot: Option<Slot>) -> Call {
    Call::MakeDirectory { at: at(path), parents: false, slot }
}

fn rename(from: &str, to: &str) -> Call {
    let (from, to) = (at(from), at(to));
    Call::Rename { from, to, demand: None, exchange: false, slot: None }
}

fn delete(path: &str, recursive: bool) -> Call {
    Call::Delete { at: at(path), recursive, now: false, demand: None, slot: None }
}

fn stat(path: &str) -> Call {
    Call::Stat { at: at(path), follow: true }
}

fn list(path: &str) -> Call {
    Call::List { at: at(path) }
}

fn seen(inode: u64) -> Seen {
    Seen { inode, kind: FileKind::Directory, size: 0, target: String::new(), xattrs: 0 }
}

fn directory(inode: u64) -> Answer {
    Answer::Node(seen(inode))
}

const NOT_FOUND: Answer = Answer::Failed(ErrorCode::NotFound);

#[test]
fn checker_rejects_stale_reads() {
    let made = |called, returned| (called, returned, mkdir("/a", None), directory(2));
    let overlooked = |called, returned| (called, returned, stat("/a"), NOT_FOUND);
    assert!(!is_linearizable(&history(vec![made(0, 1), overlooked(2, 3)])));
    assert!(is_linearizable(&history(vec![made(0, 2), overlooked(1, 3)])));
    assert!(is_linearizable(&history(vec![overlooked(0, 1), made(2, 3)])));
    let seen = |called, returned| (called, returned, stat("/a"), directory(2));
    assert!(is_linearizable(&history(vec![made(0, 4), overlooked(1, 2), seen(3, 5)])));
    assert!(!is_linearizable(&history(vec![made(0, 5), seen(1, 2), overlooked(3, 4)])));
}

#[test]
fn checker_rejects_double_creation_and_stale_value_of_an_xattr() {
    let set = |mark, slot| Call::SetXattr {
        at: at("/a"),
        name: "user.a",
        mark,
        demand: Some(false),
        slot: Some(slot),
    };
    let slot = |number| Slot { number, sequence: 0 };
    let marked = Answer::Node(Seen { xattrs: 1, ..seen(2) });
    let calls = |second, read: Option<u32>| {
        let marks = read.map(|mark| ("user.a".to_owned(), mark));
        history(vec![
            (0, 1, mkdir("/a", None), directory(2)),
            (2, 4, set(7, slot(0)), marked.clone()),
            (3, 5, set(8, slot(1)), second),
            (6, 7, Call::Xattrs { at: at("/a") }, Answer::Marked(marks.into_iter().collect())),
        ])
    };
    let taken = Answer::Failed(ErrorCode::AlreadyExists);
    assert!(is_linearizable(&calls(taken.clone(), Some(7))));
    assert!(!is_linearizable(&calls(taken.clone(), Some(8))));
    assert!(!is_linearizable(&calls(taken, None)));
    assert!(!is_linearizable(&calls(marked.clone(), Some(8))));
}

#[test]
fn checker_rejects_two_winners() {
    let at_once = |first, second| {
        history(vec![(0, 2, mkdir("/a", None), first), (1, 3, mkdir("/a", None), second)])
    };
    assert!(!is_linearizable(&at_once(directory(2), directory(3))));
    let taken = Answer::Failed(ErrorCode::AlreadyExists);
    assert!(is_linearizable(&at_once(directory(2), taken.clone())));
    assert!(is_linearizable(&at_once(taken, directory(2))));
}

#[test]
fn checker_rejects_moves_into_each_other() {
    let moves = |second| {
        history(vec![
            (0, 1, mkdir("/a", None), directory(2)),
            (2, 3, mkdir("/b", None), directory(3)),
            (4, 6, rename("/a", "/b/a"), Answer::Done),
            (5, 7, rename("/b", "/a/b"), second),
        ])
    };
    assert!(!is_linearizable(&moves(Answer::Done)));
    assert!(is_linearizable(&moves(NOT_FOUND)));
}

#[test]
fn checker_rejects_delete_of_a_non_empty_directory() {
    let deleted = |recursive| {
        history(vec![
            (0, 1, mkdir("/a", None), directory(2)),
            (2, 4, mkdir("/a/b", None), directory(3)),
            (3, 5, delete("/a", recursive), Answer::Until(true)),
        ])
    };
    assert!(!is_linearizable(&deleted(false)));
    assert!(is_linearizable(&deleted(true)));
}

#[test]
fn checker_rejects_inconsistent_listing() {
    let listed = |names: &[(&str, u64)]| {
        let seen = names.iter().map(|(name, inode)| ((*name).to_owned(), seen(*inode)));
        history(vec![
            (0, 1, mkdir("/a", None), directory(2)),
            (2, 5, rename("/a", "/b"), Answer::Done),
            (3, 4, list("/"), Answer::Listed(seen.collect())),
        ])
    };
    assert!(is_linearizable(&listed(&[("a", 2)])));
    assert!(is_linearizable(&listed(&[("b", 2)])));
    assert!(!is_linearizable(&listed(&[])));
    assert!(!is_linearizable(&listed(&[("a", 2), ("b", 2)])));
    assert!(!is_linearizable(&listed(&[("a", 3)])));
}

#[test]
fn checker_rejects_repeat_executed_twice() {
    let slot = Slot { number: 0, sequence: 1 };
    let repeated = |second| {
        history(vec![
            (0, 1, mkdir("/a", Some(slot)), directory(2)),
            (2, 3, delete("/a", false), Answer::Until(true)),
            (4, 5, mkdir("/a", Some(slot)), second),
        ])
    };
    assert!(is_linearizable(&repeated(directory(2))));
    assert!(!is_linearizable(&repeated(directory(3))));
}

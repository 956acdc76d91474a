//! Random histories, compared with a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dfs_types::{Random, Revision, SeededRandom};

use super::{Harness, snapshot};
use crate::engine::{
    Commit, Condition, Engine, Outcome, Snapshot, Versioned, Watch, Write, decode_counter,
    encode_counter,
};

type Map = BTreeMap<Bytes, Versioned>;

/// A few keys that are prefixes and neighbours of each other, so that operations collide.
const KEYS: [&[u8]; 12] = [
    b"a",
    b"a/",
    b"a/1",
    b"a/1/x",
    b"a/2",
    b"a/\xff",
    b"a/\xff\xff",
    b"a0",
    b"b",
    b"b/1",
    b"\xff",
    b"\xff\xff",
];
const PREFIXES: [&[u8]; 8] = [b"", b"a", b"a/", b"a/1", b"a/\xff", b"b/", b"c", b"\xff"];
/// Values that are added and put, chosen so that sums also overflow.
const DELTAS: [i64; 7] = [0, 1, -1, 1_000, -1_000, i64::MAX, i64::MIN];
const STEPS: usize = 150;
/// Snapshots that are kept and read again later.
const SNAPSHOTS: usize = 4;

/// Runs a few seeds of [`random_history`], one after the other on the same store.
pub async fn random_histories(harness: &mut dyn Harness) {
    for seed in 0..4 {
        random_history(harness, seed).await;
    }
}

/// Commits, reads and watches at random under `seed`, comparing with a map.
pub async fn random_history(harness: &mut dyn Harness, seed: u64) {
    let random = SeededRandom::new(seed);
    let mut history = History::begin(harness.engine().await).await;
    for step in 0..STEPS {
        let context = format!("seed {seed}, step {step}");
        match random.below(10) {
            0..6 => history.commit(&random, &context).await,
            6..8 => history.read(&random, &context).await,
            8 => history.keep_snapshot(&random).await,
            _ if random.below(5) == 0 => {
                history.finish(&context).await;
                drop(history);
                harness.reopen().await;
                history = History::begin(harness.engine().await).await;
            }
            _ => {}
        }
    }
    history.finish(&format!("seed {seed}, end")).await;
}

struct History {
    engine: Arc<dyn Engine>,
    model: Map,
    last: Revision,
    snapshots: Vec<(Box<dyn Snapshot>, Map)>,
    watch: Box<dyn Watch>,
    /// Expected reports of the watch: each commit's changes by key.
    expected: Vec<BTreeMap<Bytes, (Option<Bytes>, Revision)>>,
}

fn pick(random: &dyn Random, from: &[&'static [u8]]) -> Bytes {
    Bytes::from_static(pick_one::<&[u8]>(random, from))
}

fn pick_one<'a, T>(random: &dyn Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}

impl History {
    /// Starts from whatever an earlier history left in the store.
    async fn begin(engine: Arc<dyn Engine>) -> Self {
        let now = snapshot(&*engine).await;
        let model = now.range(b"", b"", 1000).await.expect("reads").into_iter().collect();
        let last = now.revision();
        let watch = engine.watch(Bytes::new(), last).await.expect("watches");
        Self { engine, model, last, snapshots: Vec::new(), watch, expected: Vec::new() }
    }

    async fn commit(&mut self, random: &dyn Random, context: &str) {
        let batch: Vec<Commit> =
            (0..=random.below(4)).map(|_| random_commit(random, &self.model)).collect();
        let outcomes = self.engine.commit_batch(batch.clone()).await.expect("commits");
        assert_eq!(outcomes.len(), batch.len(), "{context}");
        let before = self.last;
        for (commit, outcome) in batch.iter().zip(outcomes) {
            let failing = commit.conditions.iter().position(|c| !holds(c, &self.model));
            let failing = failing.or_else(|| refused(commit, &self.model));
            match (failing, outcome) {
                (Some(condition), outcome) => {
                    assert_eq!(outcome, Outcome::Conflict { condition }, "{context}: {commit:?}");
                }
                (None, Outcome::Committed(revision)) if commit.writes.is_empty() => {
                    assert!(revision >= before, "{context}: {revision} is from the past");
                }
                (None, Outcome::Committed(revision)) => {
                    assert!(revision > before && revision >= self.last, "{context}: {revision}");
                    self.last = revision;
                    self.expected.push(apply(commit, &mut self.model, revision));
                }
                (None, outcome) => unreachable!("{context}: {outcome:?} for {commit:?}"),
            }
        }
    }

    async fn read(&mut self, random: &dyn Random, context: &str) {
        let now = snapshot(&*self.engine).await;
        assert!(now.revision() >= self.last, "{context}: the snapshot is from the past");
        compare(&*now, &self.model, random, context).await;
        for (old, model) in &self.snapshots {
            compare(&**old, model, random, context).await;
        }
    }

    async fn keep_snapshot(&mut self, random: &dyn Random) {
        if self.snapshots.len() == SNAPSHOTS {
            self.snapshots.remove(random.below(SNAPSHOTS as u64) as usize);
        }
        self.snapshots.push((snapshot(&*self.engine).await, self.model.clone()));
    }

    /// Checks that the store equals the model, and that the watch has reported everything.
    async fn finish(&mut self, context: &str) {
        let now = snapshot(&*self.engine).await;
        let all: Map = now.range(b"", b"", 1000).await.expect("reads").into_iter().collect();
        assert_eq!(all, self.model, "{context}");
        // Commits of one batch may share a revision; only the last change of each key then counts.
        let mut by_revision: BTreeMap<Revision, BTreeMap<Bytes, Option<Bytes>>> = BTreeMap::new();
        for (key, (value, revision)) in self.expected.drain(..).flatten() {
            by_revision.entry(revision).or_default().insert(key, value);
        }
        for (revision, mut changes) in by_revision {
            while !changes.is_empty() {
                let change = super::next(&mut *self.watch).await;
                assert_eq!(change.revision, revision, "{context}: {change:?}, not {changes:?}");
                let value = changes.remove(&change.key);
                assert_eq!(value, Some(change.value), "{context}: of {:?}", change.key);
            }
        }
    }
}

fn random_commit(random: &dyn Random, model: &Map) -> Commit {
    let condition = || {
        let key = pick(random, &KEYS);
        match (random.below(4), model.get(&key)) {
            (0, _) => Condition::Absent(key),
            (1, _) => Condition::PrefixEmpty(pick(random, &PREFIXES)),
            (2, Some(found)) => Condition::Version(key, Revision(found.version.0 - 1)),
            (_, Some(found)) => Condition::Version(key, found.version),
            (_, None) => Condition::Absent(key),
        }
    };
    let write = || {
        let key = pick(random, &KEYS);
        match random.below(6) {
            0 => Write::Delete(key),
            1..4 => Write::Add(key, *pick_one(random, &DELTAS)),
            4 => Write::Put(key, encode_counter(*pick_one(random, &DELTAS))),
            _ => Write::Put(key, Bytes::from(random.below(1000).to_string())),
        }
    };
    Commit {
        conditions: (0..random.below(3)).map(|_| condition()).collect(),
        writes: (0..random.below(4)).map(|_| write()).collect(),
    }
}

fn holds(condition: &Condition, model: &Map) -> bool {
    match condition {
        Condition::Version(key, version) => {
            model.get(key).is_some_and(|found| found.version == *version)
        }
        Condition::Absent(key) => !model.contains_key(key),
        Condition::PrefixEmpty(prefix) => !model.keys().any(|key| key.starts_with(prefix)),
    }
}

/// Returns what the conflict of a commit with a refused addition names.
fn refused(commit: &Commit, model: &Map) -> Option<usize> {
    let mut model = model.clone();
    for (index, write) in commit.writes.iter().enumerate() {
        if let Write::Add(key, delta) = write
            && sum(model.get(key), *delta).is_none()
        {
            return Some(commit.conditions.len() + index);
        }
        let one = Commit { conditions: vec![], writes: vec![write.clone()] };
        apply(&one, &mut model, Revision(0));
    }
    None
}

fn sum(before: Option<&Versioned>, delta: i64) -> Option<i64> {
    match before {
        None => Some(delta),
        Some(found) => decode_counter(&found.value)?.checked_add(delta),
    }
}

fn apply(
    commit: &Commit,
    model: &mut Map,
    version: Revision,
) -> BTreeMap<Bytes, (Option<Bytes>, Revision)> {
    let before = model.clone();
    for write in &commit.writes {
        match write {
            Write::Put(key, value) => {
                model.insert(key.clone(), Versioned { value: value.clone(), version });
            }
            Write::Delete(key) => {
                model.remove(key);
            }
            Write::Add(key, delta) => {
                let sum = sum(model.get(key), *delta).expect("it was not refused");
                model.insert(key.clone(), Versioned { value: encode_counter(sum), version });
            }
        }
    }
    let keys = commit.writes.iter().map(Write::key);
    let there = keys.filter(|key| before.contains_key(*key) || model.contains_key(*key));
    let after = |key: &Bytes| model.get(key).map(|found| found.value.clone());
    there.map(|key| (key.clone(), (after(key), version))).collect()
}

async fn compare(snapshot: &dyn Snapshot, model: &Map, random: &dyn Random, context: &str) {
    let key = pick(random, &KEYS);
    let found = snapshot.get(&key).await.expect("reads");
    assert_eq!(found.as_ref(), model.get(&key), "{context}: {key:?}");

    let (prefix, after) = (pick(random, &PREFIXES), pick(random, &KEYS));
    let limit = random.below(6) as usize;
    let found = snapshot.range(&prefix, &after, limit).await.expect("reads");
    let expected: Vec<(Bytes, Versioned)> = model
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix) && **key > after)
        .take(limit)
        .map(|(key, found)| (key.clone(), found.clone()))
        .collect();
    assert_eq!(found, expected, "{context}: {prefix:?} after {after:?}, {limit} at most");

    let bound = pick(random, &KEYS);
    let found = snapshot.last_before(&prefix, &bound).await.expect("reads");
    let older = model.range(..bound.clone()).rev();
    let expected = older.map(|(key, found)| (key.clone(), found.clone()));
    let expected = expected.into_iter().find(|(key, _)| key.starts_with(&prefix));
    assert_eq!(found, expected, "{context}: {prefix:?} before {bound:?}");
}

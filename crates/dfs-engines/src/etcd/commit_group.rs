//! Independent commits in one transaction.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use dfs_etcd::etcdserverpb::{Compare, RangeRequest, RequestOp, ResponseOp};
use dfs_metadata::engine::{Commit, Condition, Effects, decode_counter};
use dfs_types::Revision;

use super::counters::{Counter, Counters};
use super::keys::Keys;
use super::requests::{delete, found, has_version, is_absent, put, read};

/// Maximum number of conditions, and of writes, per transaction. etcd accepts 128 of each by
/// default; the marker needs one.
const OPERATIONS_MAX: usize = 120;
/// Maximum bytes of the commits of one transaction. etcd accepts requests of 1.5 MiB by default,
/// and some keys are in it twice.
const BYTES_MAX: usize = 1 << 20;

/// Commits from the front of a queue, none of which has a condition on what an earlier one writes:
/// they can be judged on one state, and take effect together.
#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    commits: Vec<(usize, &'a Commit)>,
    /// All conditions, without duplicates.
    conditions: Vec<&'a Condition>,
    /// Final value of each key: that of its last write, or the sum.
    effects: Effects,
    /// Counters that the sums and refusals are based on.
    counters: BTreeMap<Bytes, Counter>,
    /// Indexes of commits with impossible additions, and what their conflicts name.
    refused: Vec<(usize, usize)>,
    bytes: usize,
}

/// Why a transaction was refused, as far as the group is concerned.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Index of each failed commit, and of its condition that does not hold.
    pub(super) conflicts: Vec<(usize, usize)>,
    /// Set if a counter differed from its cached state.
    pub(super) is_stale: bool,
    /// The current counters.
    pub(super) counters: Vec<(Bytes, Counter)>,
}

impl<'a> Group<'a> {
    /// Takes as many of `commits`, by index and in order, as can be grouped; at least the first.
    pub(super) fn gather(
        commits: impl Iterator<Item = (usize, &'a Commit)>,
        counters: &Counters,
    ) -> Self {
        let mut group = Self::default();
        for (index, commit) in commits {
            if !group.take(index, commit, counters) {
                break;
            }
        }
        group
    }

    fn take(&mut self, index: usize, commit: &'a Commit, known: &Counters) -> bool {
        let fresh = |condition: &&Condition| !self.conditions.contains(condition);
        let conditions: Vec<&Condition> = commit.conditions.iter().filter(fresh).collect();
        let mut counters = BTreeMap::new();
        let Ok(effects) = commit.effects(|key| {
            Ok::<_, Infallible>(match self.effects.get(key) {
                Some(after) => after.clone(),
                None => counters.entry(key.clone()).or_insert_with(|| known.get(key)).value(),
            })
        });
        let (effects, refused) = match effects {
            Ok(effects) => (effects, None),
            Err(condition) => (Effects::new(), Some((index, condition))),
        };
        counters.retain(|key, _| !self.counters.contains_key(key));
        let new_keys = effects.keys().filter(|key| !self.effects.contains_key(*key)).count();
        let compares = self.conditions.len() + self.counters.len();
        let is_full = compares + conditions.len() + counters.len() > OPERATIONS_MAX
            || self.effects.len() + new_keys > OPERATIONS_MAX
            || self.bytes + commit.bytes() > BYTES_MAX;
        if !self.commits.is_empty() && (is_full || self.is_touched_by(commit, &effects)) {
            return false;
        }
        self.conditions.extend(conditions);
        self.counters.extend(counters);
        self.effects.extend(effects);
        self.refused.extend(refused);
        self.bytes += commit.bytes();
        self.commits.push((index, commit));
        true
    }

    /// Returns whether the group changes what the commit is judged on, or the commit removes a key
    /// that was just set: a watch must see both changes, but sees only one change of a key per
    /// transaction.
    fn is_touched_by(&self, commit: &Commit, effects: &Effects) -> bool {
        let judged_on_writes = commit.conditions.iter().any(|condition| match condition {
            Condition::Version(key, _) | Condition::Absent(key) => self.effects.contains_key(key),
            Condition::PrefixEmpty(prefix) => {
                let next = self.effects.range::<Bytes, _>(prefix..).next();
                next.is_some_and(|(key, _)| key.starts_with(prefix))
            }
        });
        let is_set = |key| self.effects.get(key).is_some_and(Option::is_some);
        judged_on_writes || effects.iter().any(|(key, after)| after.is_none() && is_set(key))
    }

    /// Returns its commits with their indexes.
    pub(super) fn commits(&self) -> &[(usize, &'a Commit)] {
        &self.commits
    }

    /// Returns what the conflict of a refused commit names when the rest of the group takes effect.
    pub(super) fn refused(&self, commit: usize) -> Option<usize> {
        let found = self.refused.iter().find(|(index, _)| *index == commit);
        found.map(|(_, condition)| *condition)
    }

    /// Returns the counters after the group has taken effect at this revision.
    pub(super) fn counters_at(&self, revision: i64) -> Vec<(Bytes, Counter)> {
        let after = |(key, before): (&Bytes, &Counter)| {
            let after = match self.effects.get(key) {
                Some(Some(value)) => Counter::Found(revision, decode_counter(value)),
                Some(None) => Counter::Absent,
                None => *before,
            };
            (key.clone(), after)
        };
        self.counters.iter().map(after).collect()
    }

    /// Returns all conditions of all commits, and the versions of the counters.
    pub(super) fn compares(&self, keys: &Keys) -> Vec<Compare> {
        let counter = |(key, counter): (&Bytes, &Counter)| match counter {
            Counter::Found(version, _) => has_version(keys.user(key), *version as u64),
            Counter::Absent => is_absent(keys.user(key), Bytes::new()),
        };
        let conditions = self.conditions.iter().map(|condition| compare_of(condition, keys));
        conditions.chain(self.counters.iter().map(counter)).collect()
    }

    /// Returns all writes of all commits.
    pub(super) fn operations(&self, keys: &Keys) -> Vec<RequestOp> {
        let operation = |(key, value): (&Bytes, &Option<Bytes>)| match value {
            Some(value) => put(keys.user(key), value.clone(), 0),
            None => delete(keys.user(key)),
        };
        self.effects.iter().map(operation).collect()
    }

    /// Reads the keys of the conditions, one read per condition, then the counters.
    pub(super) fn reads(&self, keys: &Keys) -> Vec<RequestOp> {
        let condition = |condition: &&Condition| {
            let range_end = match condition {
                Condition::PrefixEmpty(prefix) => keys.end(prefix),
                Condition::Version(..) | Condition::Absent(_) => Bytes::new(),
            };
            let key = keys.user(condition.key());
            read(RangeRequest { key, range_end, limit: 1, keys_only: true, ..<_>::default() })
        };
        let counter = |key: &Bytes| read(RangeRequest { key: keys.user(key), ..<_>::default() });
        let conditions = self.conditions.iter().map(condition);
        conditions.chain(self.counters.keys().map(counter)).collect()
    }

    /// Returns why the group was refused, from the results of [`Self::reads`].
    pub(super) fn refusal(&self, answers: Vec<ResponseOp>) -> Refusal {
        let mut versions: BTreeMap<&[u8], Option<Revision>> = BTreeMap::new();
        let mut occupied: BTreeMap<&[u8], bool> = BTreeMap::new();
        let mut answers = answers.into_iter();
        for (condition, answer) in self.conditions.iter().zip(answers.by_ref()) {
            let kvs = found(answer);
            match condition {
                Condition::PrefixEmpty(prefix) => {
                    occupied.insert(prefix, !kvs.is_empty());
                }
                Condition::Version(key, _) | Condition::Absent(key) => {
                    let version = kvs.first().map(|kv| Revision(kv.mod_revision as u64));
                    versions.insert(key, version);
                }
            }
        }
        let first_failing = |(index, commit): &(usize, &Commit)| {
            let Ok(failing) = commit.first_failing(
                |key| Ok::<_, Infallible>(versions.get(key).copied().flatten()),
                |prefix| Ok(occupied.get(prefix).copied().unwrap_or_default()),
            );
            Some((*index, failing?))
        };
        let seen = |(key, answer): (&Bytes, _)| (key.clone(), Counter::seen(found(answer).first()));
        let counters: Vec<(Bytes, Counter)> = self.counters.keys().zip(answers).map(seen).collect();
        Refusal {
            conflicts: self.commits.iter().filter_map(first_failing).collect(),
            is_stale: counters.iter().any(|(key, seen)| self.counters.get(key) != Some(seen)),
            counters,
        }
    }
}

/// Converts a condition to a compare of etcd.
pub(super) fn compare_of(condition: &Condition, keys: &Keys) -> Compare {
    match condition {
        Condition::Version(key, revision) => has_version(keys.user(key), revision.0),
        Condition::Absent(key) => is_absent(keys.user(key), Bytes::new()),
        Condition::PrefixEmpty(prefix) => is_absent(keys.user(prefix), keys.end(prefix)),
    }
}

#[cfg(test)]
mod tests {
    use dfs_metadata::engine::{Write, encode_counter};

    use super::*;

    fn key(name: &str) -> Bytes {
        Bytes::copy_from_slice(name.as_bytes())
    }

    fn put(name: &str) -> Write {
        Write::Put(key(name), key("value"))
    }

    fn sizes(commits: &[Commit]) -> Vec<usize> {
        let mut sizes = Vec::new();
        let mut done = 0;
        while done < commits.len() {
            let group = Group::gather(commits.iter().enumerate().skip(done), &Counters::default());
            sizes.push(group.commits().len());
            done += group.commits().len();
        }
        sizes
    }

    #[test]
    fn independent_commits_are_grouped() {
        let create = |name: &str| Commit {
            conditions: vec![Condition::Absent(key(name)), Condition::Absent(key("floor"))],
            writes: vec![put(name)],
        };
        assert_eq!(sizes(&[create("a"), create("b"), create("c")]), [3]);
        let many: Vec<Commit> = (0..250).map(|i| create(&i.to_string())).collect();
        assert_eq!(sizes(&many), [119, 119, 12], "a shared condition counts once");
    }

    #[test]
    fn condition_on_an_earlier_write_starts_a_new_group() {
        let blind = |name: &str| Commit { conditions: vec![], writes: vec![put(name)] };
        let when =
            |condition: Condition| Commit { conditions: vec![condition], writes: vec![put("z")] };
        let empty = |prefix: &str| when(Condition::PrefixEmpty(key(prefix)));
        assert_eq!(sizes(&[blind("d/a"), when(Condition::Absent(key("d/a")))]), [1, 1]);
        assert_eq!(
            sizes(&[blind("d/a"), when(Condition::Version(key("d/a"), Revision(1)))]),
            [1, 1]
        );
        assert_eq!(sizes(&[blind("d/a"), empty("d/")]), [1, 1]);
        assert_eq!(sizes(&[blind("d/a"), empty("")]), [1, 1]);
        assert_eq!(sizes(&[blind("d/a"), empty("d/b"), empty("e"), empty("d/a/")]), [4]);
        assert_eq!(sizes(&[empty("z"), blind("z")]), [2], "judged before the write");
    }

    #[test]
    fn last_of_several_writes_wins() {
        let commit = |writes| Commit { conditions: vec![], writes };
        let remove = || Write::Delete(key("a"));
        let commits = [commit(vec![remove()]), commit(vec![put("a"), put("a")])];
        let group = Group::gather(commits.iter().enumerate(), &Counters::default());
        assert_eq!(group.operations(&Keys::new("p")).len(), 1);
        assert_eq!(sizes(&commits), [2]);
        assert_eq!(sizes(&[commit(vec![put("a")]), commit(vec![remove()])]), [1, 1]);
    }

    #[test]
    fn bytes_are_bounded() {
        let large = || Commit {
            conditions: vec![],
            writes: (0..5)
                .map(|i| Write::Put(key(&i.to_string()), vec![0; 60_000].into()))
                .collect(),
        };
        assert_eq!(sizes(&[large(), large(), large(), large()]), [3, 1]);
    }

    fn add(name: &str, delta: i64) -> Commit {
        Commit { conditions: vec![], writes: vec![Write::Add(key(name), delta)] }
    }

    #[test]
    fn additions_to_one_counter_become_one_write() {
        let mut counters = Counters::default();
        counters.learn(vec![(key("a"), Counter::Found(7, Some(40)))]);
        let commits = [add("a", 1), add("b", 5), add("a", 3), add("a", -2)];
        let group = Group::gather(commits.iter().enumerate(), &counters);
        let keys = Keys::new("p");
        assert_eq!(group.commits().len(), 4);
        let sums = [("a", 42), ("b", 5)]
            .map(|(name, sum)| super::put(keys.user(&key(name)), encode_counter(sum), 0));
        assert_eq!(group.operations(&keys), sums);
        let compares =
            [has_version(keys.user(&key("a")), 7), is_absent(keys.user(&key("b")), Bytes::new())];
        assert_eq!(group.compares(&keys), compares);
        let after =
            [(key("a"), Counter::Found(9, Some(42))), (key("b"), Counter::Found(9, Some(5)))];
        assert_eq!(group.counters_at(9), after);
    }

    #[test]
    fn addition_after_a_put_needs_no_counter() {
        let blind = |writes| Commit { conditions: vec![], writes };
        let commits = [blind(vec![Write::Put(key("a"), encode_counter(1))]), add("a", 1)];
        let group = Group::gather(commits.iter().enumerate(), &Counters::default());
        assert_eq!((group.commits().len(), group.compares(&Keys::new("p"))), (2, vec![]));
        assert_eq!(sizes(&[add("a", 1), blind(vec![Write::Delete(key("a"))])]), [1, 1]);
    }

    #[test]
    fn refused_addition_does_not_affect_its_neighbours() {
        let mut counters = Counters::default();
        counters.learn(vec![(key("a"), Counter::Found(7, Some(i64::MAX)))]);
        let commits = [add("a", 1), add("a", -1)];
        let group = Group::gather(commits.iter().enumerate(), &counters);
        assert_eq!((group.refused(0), group.refused(1)), (Some(0), None));
        assert_eq!(group.counters_at(9), [(key("a"), Counter::Found(9, Some(i64::MAX - 1)))]);
    }
}

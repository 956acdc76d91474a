//! Independent commits that make one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use bytes::Bytes;
use dfs_etcd::etcdserverpb::{Compare, RangeRequest, RequestOp, ResponseOp};
use dfs_metadata::engine::{Commit, Condition, Write};
use dfs_types::Revision;

use super::keys::Keys;
use super::requests::{delete, found, has_version, is_absent, put, read};

/// Conditions of one transaction at most, and writes. etcd takes 128 of each unless it is told
/// otherwise; the marker needs one.
const OPERATIONS_MAX: usize = 120;
/// Bytes of the commits of one transaction at most. etcd takes requests of 1.5 MiB unless it is
/// told otherwise, and some keys are in it twice.
const BYTES_MAX: usize = 1 << 20;

/// Commits from the front of a queue, none of which has a condition on what an earlier one of them
/// writes: they can be judged on one state, and take place together.
#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    commits: Vec<(usize, &'a Commit)>,
    /// Each only once.
    conditions: Vec<&'a Condition>,
    /// What each key holds afterwards; of several writes the last.
    writes: BTreeMap<&'a Bytes, Option<&'a Bytes>>,
    bytes: usize,
}

impl<'a> Group<'a> {
    /// Takes as many of `commits`, by index and in order, as go together; at least the first.
    pub(super) fn gather(commits: impl Iterator<Item = (usize, &'a Commit)>) -> Self {
        let mut group = Self::default();
        for (index, commit) in commits {
            if !group.take(index, commit) {
                break;
            }
        }
        group
    }

    fn take(&mut self, index: usize, commit: &'a Commit) -> bool {
        let fresh = |condition: &&Condition| !self.conditions.contains(condition);
        let conditions: Vec<&Condition> = commit.conditions.iter().filter(fresh).collect();
        let keys: BTreeSet<&Bytes> = commit.writes.iter().map(Write::key).collect();
        let new_keys = keys.iter().filter(|key| !self.writes.contains_key(**key)).count();
        let is_full = self.conditions.len() + conditions.len() > OPERATIONS_MAX
            || self.writes.len() + new_keys > OPERATIONS_MAX
            || self.bytes + commit.bytes() > BYTES_MAX;
        if !self.commits.is_empty() && (is_full || self.is_touched_by(commit)) {
            return false;
        }
        self.conditions.extend(conditions);
        self.writes.extend(commit.writes.iter().map(|write| (write.key(), write.value())));
        self.bytes += commit.bytes();
        self.commits.push((index, commit));
        true
    }

    /// Whether what is in the group already changes what the commit is judged on, or the commit
    /// removes a key that was set just before: a watch must see both, and sees one change of a
    /// key in each transaction.
    fn is_touched_by(&self, commit: &Commit) -> bool {
        let judged_on_writes = commit.conditions.iter().any(|condition| match condition {
            Condition::Version(key, _) | Condition::Absent(key) => self.writes.contains_key(key),
            Condition::PrefixEmpty(prefix) => {
                let next = self.writes.range::<&Bytes, _>(prefix..).next();
                next.is_some_and(|(key, _)| key.starts_with(prefix))
            }
        });
        judged_on_writes
            || commit.writes.iter().any(|write| {
                write.value().is_none() && self.writes.get(write.key()).is_some_and(Option::is_some)
            })
    }

    /// Its commits, with the index of each.
    pub(super) fn commits(&self) -> &[(usize, &'a Commit)] {
        &self.commits
    }

    /// All conditions of all commits.
    pub(super) fn compares(&self, keys: &Keys) -> Vec<Compare> {
        let compare = |condition: &&Condition| match condition {
            Condition::Version(key, revision) => has_version(keys.user(key), revision.0),
            Condition::Absent(key) => is_absent(keys.user(key), Bytes::new()),
            Condition::PrefixEmpty(prefix) => is_absent(keys.user(prefix), keys.end(prefix)),
        };
        self.conditions.iter().map(compare).collect()
    }

    /// All writes of all commits.
    pub(super) fn operations(&self, keys: &Keys) -> Vec<RequestOp> {
        let operation = |key: &Bytes, value: Option<&Bytes>| match value {
            Some(value) => put(keys.user(key), value.clone(), 0),
            None => delete(keys.user(key)),
        };
        self.writes.iter().map(|(key, value)| operation(key, *value)).collect()
    }

    /// Reads what the conditions are about, one read for each condition.
    pub(super) fn reads(&self, keys: &Keys) -> Vec<RequestOp> {
        let look = |condition: &&Condition| {
            let range_end = match condition {
                Condition::PrefixEmpty(prefix) => keys.end(prefix),
                Condition::Version(..) | Condition::Absent(_) => Bytes::new(),
            };
            let key = keys.user(condition.key());
            read(RangeRequest { key, range_end, limit: 1, keys_only: true, ..<_>::default() })
        };
        self.conditions.iter().map(look).collect()
    }

    /// The commits that have a condition which does not hold, with the first such condition, on
    /// the state that [`Self::reads`] gave.
    pub(super) fn conflicts(&self, answers: Vec<ResponseOp>) -> Vec<(usize, usize)> {
        let mut versions: BTreeMap<&[u8], Option<Revision>> = BTreeMap::new();
        let mut occupied: BTreeMap<&[u8], bool> = BTreeMap::new();
        for (condition, answer) in self.conditions.iter().zip(answers) {
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
        self.commits.iter().filter_map(first_failing).collect()
    }
}

#[cfg(test)]
mod tests {
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
            let group = Group::gather(commits.iter().enumerate().skip(done));
            sizes.push(group.commits().len());
            done += group.commits().len();
        }
        sizes
    }

    #[test]
    fn commits_that_know_nothing_of_each_other_go_together() {
        let create = |name: &str| Commit {
            conditions: vec![Condition::Absent(key(name)), Condition::Absent(key("floor"))],
            writes: vec![put(name)],
        };
        assert_eq!(sizes(&[create("a"), create("b"), create("c")]), [3]);
        let many: Vec<Commit> = (0..250).map(|i| create(&i.to_string())).collect();
        assert_eq!(sizes(&many), [119, 119, 12], "the condition that all share counts once");
    }

    #[test]
    fn a_condition_on_an_earlier_write_starts_anew() {
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
        assert_eq!(sizes(&[empty("z"), blind("z")]), [2], "judged before, written after");
    }

    #[test]
    fn of_several_writes_the_last_wins() {
        let commit = |writes| Commit { conditions: vec![], writes };
        let remove = || Write::Delete(key("a"));
        let commits = [commit(vec![remove()]), commit(vec![put("a"), put("a")])];
        let group = Group::gather(commits.iter().enumerate());
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
}

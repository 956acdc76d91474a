//! What a commit asks for, how large it may be, and what it comes to on a given state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dfs_types::Revision;

use super::EngineError;
use super::counter::{COUNTER_LEN, decode_counter, encode_counter};

/// Distinct keys that one commit may name at most, in conditions and writes together. Neither of
/// the two lists may be longer than this either, where each [`Write::Add`] also counts as a
/// condition.
pub const COMMIT_KEYS_MAX: usize = 100;
/// Bytes a key has at most.
pub const KEY_LEN_MAX: usize = 512;
/// Bytes a value has at most.
pub const VALUE_LEN_MAX: usize = (64 << 10) + 64;
/// Bytes that the keys and values of one commit have at most, in conditions and writes together.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;

/// What must hold for a commit to take place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key exists, and was last written by this revision.
    Version(Bytes, Revision),
    /// The key does not exist.
    Absent(Bytes),
    /// No key starts with this prefix.
    PrefixEmpty(Bytes),
}

/// A change of one key. Writes may be blind; of two, the later commit wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the key.
    Put(Bytes, Bytes),
    /// Removes the key, if it exists.
    Delete(Bytes),
    /// Adds to the counter under the key, which is 0 where there is none, and so makes it.
    ///
    /// Blind: it conflicts with no other write of the key, and since sums commute, the order of
    /// adding does not matter. The value before is the one that earlier writes of the same commit,
    /// and earlier commits of the batch, left: after a `Put` it adds to what was put, after a
    /// `Delete` to 0. To versions and watches it is a `Put` of the sum, see
    /// [`decode_counter`](super::decode_counter).
    ///
    /// It is refused, and with it the whole commit, when the key holds something other than a
    /// counter or the sum would not fit 64 bits: see [`Outcome::Conflict`](super::Outcome).
    ///
    /// Right with any number of writers, but fast with one alone: on etcd a handle that knows the
    /// counter adds without reading, and one that another was faster than has to start over.
    Add(Bytes, i64),
}

/// Conditions and writes that take place together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// All of them must hold, judged on the state before any write of this commit.
    pub conditions: Vec<Condition>,
    /// In this order; a later write of the same key wins, or adds to an earlier one.
    pub writes: Vec<Write>,
}

/// What keys hold after a commit; `None` where it removes one. Each key once, however many writes
/// it had.
pub type Effects = BTreeMap<Bytes, Option<Bytes>>;

impl Write {
    /// The key it changes.
    pub fn key(&self) -> &Bytes {
        let (Self::Put(key, _) | Self::Delete(key) | Self::Add(key, _)) = self;
        key
    }

    /// Bytes of its key and value.
    pub fn bytes(&self) -> usize {
        self.key().len() + self.value_len()
    }

    fn value_len(&self) -> usize {
        match self {
            Self::Put(_, value) => value.len(),
            Self::Delete(_) => 0,
            Self::Add(..) => COUNTER_LEN,
        }
    }
}

impl Condition {
    /// The key or prefix it is about.
    pub fn key(&self) -> &Bytes {
        let (Self::Version(key, _) | Self::Absent(key) | Self::PrefixEmpty(key)) = self;
        key
    }
}

impl Commit {
    /// Bytes of its keys and values, in conditions and writes together.
    pub fn bytes(&self) -> usize {
        let conditions = self.conditions.iter().map(|condition| condition.key().len());
        conditions.chain(self.writes.iter().map(Write::bytes)).sum()
    }

    /// Refuses with [`EngineError::TooLarge`] what no engine has to accept. Each engine calls it,
    /// so that a commit which works on one works on all.
    pub fn check_limits(&self) -> Result<(), EngineError> {
        let too_large = |what: String| Err(EngineError::TooLarge(what));
        let named = self.conditions.iter().map(Condition::key);
        let keys: BTreeSet<&Bytes> = named.chain(self.writes.iter().map(Write::key)).collect();
        let adds = self.writes.iter().filter(|write| matches!(write, Write::Add(..))).count();
        let most = keys.len().max(self.conditions.len() + adds).max(self.writes.len());
        if most > COMMIT_KEYS_MAX {
            return too_large(format!("{most} keys, at most {COMMIT_KEYS_MAX} are allowed"));
        }
        if let Some(key) = keys.iter().find(|key| key.len() > KEY_LEN_MAX) {
            let len = key.len();
            return too_large(format!("a key of {len} bytes, at most {KEY_LEN_MAX} are allowed"));
        }
        if self.writes.iter().any(|write| write.key().is_empty()) {
            return too_large("an empty key".to_owned());
        }
        if let Some(len) = self.writes.iter().map(Write::value_len).max()
            && len > VALUE_LEN_MAX
        {
            return too_large(format!(
                "a value of {len} bytes, at most {VALUE_LEN_MAX} are allowed"
            ));
        }
        let bytes = self.bytes();
        if bytes > COMMIT_BYTES_MAX {
            return too_large(format!("{bytes} bytes, at most {COMMIT_BYTES_MAX} are allowed"));
        }
        Ok(())
    }

    /// Index of the first condition that does not hold on a state, which is given by the version
    /// of a key and by whether any key starts with a prefix.
    pub fn first_failing<E>(
        &self,
        mut version: impl FnMut(&[u8]) -> Result<Option<Revision>, E>,
        mut occupied: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<Option<usize>, E> {
        for (index, condition) in self.conditions.iter().enumerate() {
            let holds = match condition {
                Condition::Version(key, wanted) => version(key)? == Some(*wanted),
                Condition::Absent(key) => version(key)?.is_none(),
                Condition::PrefixEmpty(prefix) => !occupied(prefix)?,
            };
            if !holds {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// What the writes come to on a state, which is given by the value of a key. It is asked only
    /// for keys that are added to before anything else in the commit sets them.
    ///
    /// `Err` holds what [`Outcome::Conflict`](super::Outcome) names for an [`Write::Add`] that is
    /// refused.
    pub fn effects<E>(
        &self,
        mut value: impl FnMut(&Bytes) -> Result<Option<Bytes>, E>,
    ) -> Result<Result<Effects, usize>, E> {
        let mut effects = Effects::new();
        for (index, write) in self.writes.iter().enumerate() {
            let (key, after) = match write {
                Write::Put(key, value) => (key, Some(value.clone())),
                Write::Delete(key) => (key, None),
                Write::Add(key, delta) => {
                    let before = match effects.get(key) {
                        Some(before) => before.clone(),
                        None => value(key)?,
                    };
                    let before = before.map_or(Some(0), |before| decode_counter(&before));
                    let Some(sum) = before.and_then(|before| before.checked_add(*delta)) else {
                        return Ok(Err(self.conditions.len() + index));
                    };
                    (key, Some(encode_counter(sum)))
                }
            };
            effects.insert(key.clone(), after);
        }
        Ok(Ok(effects))
    }
}

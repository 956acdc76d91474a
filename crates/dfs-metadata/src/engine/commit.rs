//! The parts of a commit, its limits, and its effects on a given state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dfs_types::Revision;

use super::EngineError;
use super::counter::{COUNTER_LEN, decode_counter, encode_counter};

/// Maximum number of distinct keys per commit, in conditions and writes together. Neither of the
/// two lists may be longer than this either; each [`Write::Add`] also counts as a condition.
pub const COMMIT_KEYS_MAX: usize = 100;
/// Maximum length of a key in bytes.
pub const KEY_LEN_MAX: usize = 512;
/// Maximum length of a value in bytes.
pub const VALUE_LEN_MAX: usize = (64 << 10) + 64;
/// Maximum number of bytes of keys and values per commit, in conditions and writes together.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;

/// A condition of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key exists, and was last written at this revision.
    Version(Bytes, Revision),
    /// The key does not exist.
    Absent(Bytes),
    /// No key starts with this prefix.
    PrefixEmpty(Bytes),
}

/// A change of one key. Writes may be unconditional; the later of two commits wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the key.
    Put(Bytes, Bytes),
    /// Removes the key, if it exists.
    Delete(Bytes),
    /// Adds to the counter under the key; a missing key counts as 0 and is created.
    ///
    /// Unconditional: conflicts with no other write of the key, and as sums commute, the order of
    /// additions does not matter. It adds to what earlier writes of the same commit and earlier
    /// commits of the batch left: after a `Put` to the value put, after a `Delete` to 0. To
    /// versions and watches it is a `Put` of the sum, see
    /// [`decode_counter`](super::decode_counter).
    ///
    /// Fails the whole commit when the key holds something other than a counter, or the sum would
    /// overflow 64 bits: see [`Outcome::Conflict`](super::Outcome).
    ///
    /// Correct with any number of writers, but fast with only one: on etcd, a handle that knows the
    /// counter adds without reading, and retries if another writer was faster.
    Add(Bytes, i64),
}

/// Conditions and writes that take effect together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// All must hold on the state before any write of this commit.
    pub conditions: Vec<Condition>,
    /// Applied in this order; a later write of the same key wins, or adds to an earlier one.
    pub writes: Vec<Write>,
}

/// Values of keys after a commit; `None` for a removed key. One entry per key, however many writes
/// it had.
pub type Effects = BTreeMap<Bytes, Option<Bytes>>;

impl Write {
    /// Returns the key it changes.
    pub fn key(&self) -> &Bytes {
        let (Self::Put(key, _) | Self::Delete(key) | Self::Add(key, _)) = self;
        key
    }

    /// Returns the bytes of its key and value.
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
    /// Returns its key or prefix.
    pub fn key(&self) -> &Bytes {
        let (Self::Version(key, _) | Self::Absent(key) | Self::PrefixEmpty(key)) = self;
        key
    }
}

impl Commit {
    /// Returns the bytes of its keys and values, in conditions and writes together.
    pub fn bytes(&self) -> usize {
        let conditions = self.conditions.iter().map(|condition| condition.key().len());
        conditions.chain(self.writes.iter().map(Write::bytes)).sum()
    }

    /// Refuses with [`EngineError::TooLarge`] what engines need not accept. Every engine calls it,
    /// so that a commit that works on one works on all.
    pub fn check_limits(&self) -> Result<(), EngineError> {
        let too_large = |what: String| Err(EngineError::TooLarge(what));
        let named = self.conditions.iter().map(Condition::key);
        let keys: BTreeSet<&Bytes> = named.chain(self.writes.iter().map(Write::key)).collect();
        let adds = self.writes.iter().filter(|write| matches!(write, Write::Add(..))).count();
        let most = keys.len().max(self.conditions.len() + adds).max(self.writes.len());
        if most > COMMIT_KEYS_MAX {
            return too_large(format!("{most} keys; at most {COMMIT_KEYS_MAX} are allowed"));
        }
        if let Some(key) = keys.iter().find(|key| key.len() > KEY_LEN_MAX) {
            let len = key.len();
            return too_large(format!("a key of {len} bytes; at most {KEY_LEN_MAX} are allowed"));
        }
        if self.writes.iter().any(|write| write.key().is_empty()) {
            return too_large("an empty key".to_owned());
        }
        if let Some(len) = self.writes.iter().map(Write::value_len).max()
            && len > VALUE_LEN_MAX
        {
            return too_large(format!(
                "a value of {len} bytes; at most {VALUE_LEN_MAX} are allowed"
            ));
        }
        let bytes = self.bytes();
        if bytes > COMMIT_BYTES_MAX {
            return too_large(format!("{bytes} bytes; at most {COMMIT_BYTES_MAX} are allowed"));
        }
        Ok(())
    }

    /// Returns the index of the first condition that does not hold on a state, given the version of
    /// a key and whether any key starts with a prefix.
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

    /// Returns the effects of the writes on a state, given the value of a key. Only keys that are
    /// added to before anything else in the commit sets them are read.
    ///
    /// `Err` holds the index that [`Outcome::Conflict`](super::Outcome) names for a refused
    /// [`Write::Add`].
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

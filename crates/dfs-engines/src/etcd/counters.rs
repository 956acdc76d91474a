//! What a handle knows of the counters that it adds to.
//!
//! etcd cannot add, so a sum is put on the condition that the counter is still of the version that
//! was added to. Nothing here has to be right: what is not known is taken to be absent, a wrong
//! version refuses the transaction, and the refusal brings the counter along. So no addition is
//! lost or made twice, whatever becomes of an answer, and a handle that alone adds to a counter
//! reads it only once.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_etcd::mvccpb::KeyValue;
use dfs_metadata::engine::{decode_counter, encode_counter};

/// Counters that are remembered at most; then all are forgotten, which costs one refusal each.
const COUNTERS_MAX: usize = 4096;

/// A key that is added to, as it was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counter {
    Absent,
    /// Its version, and its number; `None` when it holds something other than a counter.
    Found(i64, Option<i64>),
}

impl Counter {
    /// What a read found.
    pub(super) fn seen(found: Option<&KeyValue>) -> Self {
        found.map_or(Self::Absent, |kv| Self::Found(kv.mod_revision, decode_counter(&kv.value)))
    }

    /// The value it has, as [`Commit::effects`](dfs_metadata::engine::Commit::effects) wants it.
    pub(super) fn value(self) -> Option<Bytes> {
        match self {
            Self::Absent => None,
            Self::Found(_, number) => Some(number.map_or_else(Bytes::new, encode_counter)),
        }
    }
}

/// The counters of a handle.
#[derive(Debug, Default)]
pub(super) struct Counters(BTreeMap<Bytes, Counter>);

impl Counters {
    /// What is known of a counter.
    pub(super) fn get(&self, key: &Bytes) -> Counter {
        self.0.get(key).copied().unwrap_or(Counter::Absent)
    }

    pub(super) fn learn(&mut self, seen: Vec<(Bytes, Counter)>) {
        if self.0.len() + seen.len() > COUNTERS_MAX {
            self.0.clear();
        }
        self.0.extend(seen);
    }
}

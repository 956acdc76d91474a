//! Cached counters that a handle adds to.
//!
//! etcd cannot add, so a sum is written on the condition that the counter still has the version
//! that was added to. The cache need not be right: an unknown counter is taken to be absent, a
//! wrong version refuses the transaction, and the refusal returns the counter. No addition is
//! therefore lost or applied twice, even when a reply is lost, and a handle that is alone in adding
//! to a counter reads it only once.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_etcd::mvccpb::KeyValue;
use dfs_metadata::engine::{decode_counter, encode_counter};

/// Maximum number of counters cached; beyond that all are dropped, which costs one refusal each.
const COUNTERS_MAX: usize = 4096;

/// A counter as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counter {
    Absent,
    /// Version and number; `None` when it holds something other than a counter.
    Found(i64, Option<i64>),
}

impl Counter {
    /// Converts the result of a read.
    pub(super) fn seen(found: Option<&KeyValue>) -> Self {
        found.map_or(Self::Absent, |kv| Self::Found(kv.mod_revision, decode_counter(&kv.value)))
    }

    /// Returns its value as [`Commit::effects`](dfs_metadata::engine::Commit::effects) needs it.
    pub(super) fn value(self) -> Option<Bytes> {
        match self {
            Self::Absent => None,
            Self::Found(_, number) => Some(number.map_or_else(Bytes::new, encode_counter)),
        }
    }
}

/// The cached counters of a handle.
#[derive(Debug, Default)]
pub(super) struct Counters(BTreeMap<Bytes, Counter>);

impl Counters {
    /// Returns a counter as last seen.
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

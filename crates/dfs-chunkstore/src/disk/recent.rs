//! A bounded cache that evicts the least recently used entry: open files, verified checksums.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dfs_types::{ChunkId, Stamp};

/// Maximum number of entries of one cache.
const ENTRIES_MAX: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKey {
    Segment(u32),
    /// The stamp distinguishes a replica from a later one of the same chunk.
    Chunk(ChunkId, Stamp),
}

pub(super) struct Recent<K, V>(Mutex<State<K, V>>);

struct State<K, V> {
    /// Values, each with the sequence number of its last use.
    entries: BTreeMap<K, (V, u64)>,
    uses: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::new(State { entries: BTreeMap::new(), uses: 0 }))
    }
}

impl<K: Copy + Ord, V: Clone> Recent<K, V> {
    /// Returns the cached value, or the one that `make` returns. `make` runs without the lock; of
    /// two concurrent calls the later value stays.
    pub(super) fn get_or_insert<E>(
        &self,
        key: K,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        if let Some(value) = self.get(key) {
            return Ok(value);
        }
        let value = make()?;
        self.insert(key, value.clone());
        Ok(value)
    }

    fn get(&self, key: K) -> Option<V> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses += 1;
        let uses = state.uses;
        let (value, used) = state.entries.get_mut(&key)?;
        *used = uses;
        Some(value.clone())
    }

    fn insert(&self, key: K, value: V) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.entries.len() >= ENTRIES_MAX {
            let oldest = state.entries.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                state.entries.remove(&oldest);
            }
        }
        state.uses += 1;
        let uses = state.uses;
        state.entries.insert(key, (value, uses));
    }

    pub(super) fn remove(&self, key: K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_entry_is_evicted() {
        let cache = Recent::default();
        let read = |key| cache.get_or_insert(key, || Err(()));
        for key in 0..ENTRIES_MAX {
            assert_eq!(cache.get_or_insert(key, || Ok::<_, ()>(key)), Ok(key));
        }
        assert_eq!(read(0), Ok(0));
        assert_eq!(cache.get_or_insert(ENTRIES_MAX, || Ok::<_, ()>(7)), Ok(7));
        assert_eq!((read(0), read(1), read(ENTRIES_MAX)), (Ok(0), Err(()), Ok(7)));
        cache.remove(0);
        assert_eq!(read(0), Err(()));
    }
}

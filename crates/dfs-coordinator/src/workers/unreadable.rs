//! Records that background work came across and could not read.

use std::collections::BTreeMap;

use dfs_metadata::namespace::Unreadable;

/// Records by their keys, as messages show them, with why they cannot be read. They are skipped,
/// counted and named, and keep nothing else waiting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UnreadableRecords(BTreeMap<String, String>);

impl UnreadableRecords {
    /// Records that are counted at most.
    const MAX: usize = 10_000;

    pub(crate) fn add(&mut self, record: Unreadable) {
        if self.0.len() < Self::MAX {
            self.0.insert(record.key, record.why);
        }
    }

    /// Takes over those of another worker.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (key, why) in &other.0 {
            self.add(Unreadable { key: key.clone(), why: why.clone() });
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The first key and why it cannot be read; empty when there is none.
    pub(crate) fn example(&self) -> String {
        let first = self.0.first_key_value();
        first.map_or_else(String::new, |(key, why)| format!("{key}: {why}"))
    }
}

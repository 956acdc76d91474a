//! Unreadable records found by background work.

use std::collections::BTreeMap;

use dfs_metadata::namespace::Unreadable;

/// Unreadable records by printable key, with the reason. They are skipped, counted and reported,
/// and block nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UnreadableRecords(BTreeMap<String, String>);

impl UnreadableRecords {
    /// Maximum number of records counted.
    const MAX: usize = 10_000;

    pub(crate) fn add(&mut self, record: Unreadable) {
        if self.0.len() < Self::MAX {
            self.0.insert(record.key, record.why);
        }
    }

    /// Adds the records of another worker.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (key, why) in &other.0 {
            self.add(Unreadable { key: key.clone(), why: why.clone() });
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the first key and reason; empty when there is none.
    pub(crate) fn example(&self) -> String {
        let first = self.0.first_key_value();
        first.map_or_else(String::new, |(key, why)| format!("{key}: {why}"))
    }
}

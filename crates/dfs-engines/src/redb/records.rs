//! The layout of keys, versions and values in the tables of redb, and a consistent view of them.
//!
//! Records are in one table for each first byte of their keys, and those of a batch are written in
//! key order. Inodes and chunks are created in nearly ascending order, and redb fills the leaves of
//! an ascending load only at the end of a table: otherwise every leaf stays half empty.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::{Bound, RangeInclusive};

use bytes::Bytes;
use dfs_metadata::engine::{Versioned, bounds_before};
use dfs_types::{Crc32c, Revision};
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, TableHandle,
    WriteTransaction,
};

use super::fault::{Fault, damaged};

type Key = &'static [u8];
/// Version, checksum and value, see [`encode`].
type Value = &'static [u8];

/// Start of the name of a table of records; the first byte of its keys follows, in hexadecimal.
const RECORDS: &str = "records-";
/// Format and revision of the store.
pub(super) const STATE: TableDefinition<'static, &'static str, u64> = TableDefinition::new("state");
/// Key of [`STATE`]: the revision of the last commit.
pub(super) const REVISION_KEY: &str = "revision";

/// The tables of records, by the first byte of their keys.
pub(super) struct Records<T>(BTreeMap<u8, T>);

/// The records as a batch changes them.
pub(super) struct Changes<'t> {
    transaction: &'t WriteTransaction,
    tables: Records<Table<'t, Key, Value>>,
    /// Changed records, as stored; `None` for removed keys.
    changed: BTreeMap<Bytes, Option<Vec<u8>>>,
}

/// Everything at one revision.
pub(super) struct View {
    revision: Revision,
    records: Records<ReadOnlyTable<Key, Value>>,
}

impl View {
    pub(super) fn new(database: &Database) -> Result<Self, Fault> {
        let read = database.begin_read()?;
        let revision = read.open_table(STATE)?.get(REVISION_KEY)?.map(|revision| revision.value());
        let Some(revision) = revision else { return Err(damaged("it has no revision")) };
        let mut records = BTreeMap::new();
        for table in read.list_tables()? {
            if let Some(byte) = first_byte(table.name())? {
                records.insert(byte, read.open_table(TableDefinition::new(table.name()))?);
            }
        }
        Ok(Self { revision: Revision(revision), records: Records(records) })
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn records(&self) -> &Records<ReadOnlyTable<Key, Value>> {
        &self.records
    }
}

/// Returns the first byte of the keys in a table; `None` for the table of the state.
fn first_byte(table: &str) -> Result<Option<u8>, Fault> {
    if table == STATE.name() {
        return Ok(None);
    }
    let byte = table.strip_prefix(RECORDS).and_then(|byte| u8::from_str_radix(byte, 16).ok());
    byte.map(Some).ok_or_else(|| {
        damaged(
            "a build from before the first release wrote it, whose formats are no longer read; \
             create a new cluster in an empty directory",
        )
    })
}

/// Returns the tables that may have keys with a prefix.
fn tables_of(prefix: &[u8]) -> RangeInclusive<u8> {
    prefix.first().map_or(0..=u8::MAX, |byte| *byte..=*byte)
}

impl<T: ReadableTable<Key, Value>> Records<T> {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Versioned>, Fault> {
        let Some(table) = self.0.get(&table_of(key)) else { return Ok(None) };
        match table.get(key)? {
            Some(record) => Ok(Some(decode(key, record.value())?)),
            None => Ok(None),
        }
    }

    pub(super) fn range(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, Fault> {
        let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let mut found = Vec::new();
        for (_, table) in self.0.range(tables_of(prefix)) {
            for entry in table.range::<&[u8]>((start, Bound::Unbounded))? {
                if found.len() == limit {
                    return Ok(found);
                }
                let (key, record) = entry?;
                let key = key.value();
                if !key.starts_with(prefix) {
                    break;
                }
                found.push((Bytes::copy_from_slice(key), decode(key, record.value())?));
            }
        }
        Ok(found)
    }

    pub(super) fn last_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Versioned)>, Fault> {
        let Some((start, end)) = bounds_before(prefix, key) else { return Ok(None) };
        for (_, table) in self.0.range(tables_of(prefix)).rev() {
            if let Some(entry) = table.range::<&[u8]>(&*start..&*end)?.next_back() {
                let (key, record) = entry?;
                let key = key.value();
                return Ok(Some((Bytes::copy_from_slice(key), decode(key, record.value())?)));
            }
        }
        Ok(None)
    }
}

impl<'t> Changes<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
        let mut tables = BTreeMap::new();
        for table in transaction.list_tables()? {
            if let Some(byte) = first_byte(table.name())? {
                tables.insert(byte, open(transaction, byte)?);
            }
        }
        Ok(Self { transaction, tables: Records(tables), changed: BTreeMap::new() })
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Versioned>, Fault> {
        match self.changed.get(key) {
            Some(Some(record)) => Ok(Some(decode(key, record)?)),
            Some(None) => Ok(None),
            None => self.tables.get(key),
        }
    }

    /// Returns whether there is a key with a prefix.
    pub(super) fn has_prefix(&self, prefix: &[u8]) -> Result<bool, Fault> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let mut changed = self.changed.range::<[u8], _>(from);
        let is_added = |(_, record): (&Bytes, &Option<Vec<u8>>)| record.is_some();
        if changed.by_ref().take_while(|(key, _)| key.starts_with(prefix)).any(is_added) {
            return Ok(true);
        }
        for (_, table) in self.tables.0.range(tables_of(prefix)) {
            for entry in table.range::<&[u8]>(from)? {
                let (key, _) = entry?;
                let key = key.value();
                if !key.starts_with(prefix) {
                    break;
                }
                if !self.changed.contains_key(key) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Puts a record, or removes it.
    pub(super) fn set(&mut self, key: Bytes, record: Option<Vec<u8>>) {
        self.changed.insert(key, record);
    }

    /// Writes the changes to the tables.
    pub(super) fn write(self) -> Result<(), Fault> {
        let Self { transaction, tables: Records(mut tables), changed } = self;
        for (key, record) in changed {
            let table = match tables.entry(table_of(&key)) {
                Entry::Occupied(table) => table.into_mut(),
                Entry::Vacant(table) => table.insert(open(transaction, table_of(&key))?),
            };
            match record {
                Some(record) => drop(table.insert(&*key, &*record)?),
                None => drop(table.remove(&*key)?),
            }
        }
        Ok(())
    }
}

fn open(transaction: &WriteTransaction, byte: u8) -> Result<Table<'_, Key, Value>, Fault> {
    let name = format!("{RECORDS}{byte:02x}");
    Ok(transaction.open_table(TableDefinition::new(&name))?)
}

fn table_of(key: &[u8]) -> u8 {
    key.first().copied().unwrap_or_default()
}

/// Bytes of version and checksum before a value.
const RECORD_HEAD: usize = 12;

/// Encodes a record: version, crc32c over key, version and value, then the value. redb only
/// verifies its pages after a crash, so this detects bits that flip at rest.
pub(super) fn encode(key: &[u8], version: Revision, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_HEAD + value.len());
    record.extend_from_slice(&version.0.to_be_bytes());
    record.extend_from_slice(&checksum(key, version.0.to_be_bytes(), value).0.to_be_bytes());
    record.extend_from_slice(value);
    record
}

fn decode(key: &[u8], record: &[u8]) -> Result<Versioned, Fault> {
    let damaged = || damaged("a record does not match its checksum");
    let (version, rest) = record.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (stored, value) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    if checksum(key, *version, value).0 != u32::from_be_bytes(*stored) {
        return Err(damaged());
    }
    let version = Revision(u64::from_be_bytes(*version));
    Ok(Versioned { value: Bytes::copy_from_slice(value), version })
}

fn checksum(key: &[u8], version: [u8; 8], value: &[u8]) -> Crc32c {
    Crc32c::of(key).append(&version).append(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_an_older_build_is_refused_with_what_to_do() {
        assert!(matches!(first_byte(STATE.name()), Ok(None)));
        assert!(matches!(first_byte(&format!("{RECORDS}69")), Ok(Some(b'i'))));
        let Err(Fault::Record(refused)) = first_byte("kv") else { panic!("it was read") };
        let refused = refused.to_string();
        assert!(refused.contains("in an empty directory"), "{refused}");
    }
}

//! The tables in redb, and a consistent view of them.

use std::ops::Bound;

use bytes::Bytes;
use dfs_metadata::engine::{Versioned, bounds_before};
use dfs_types::{Crc32c, Revision};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use super::fault::{Fault, damaged};

type Records = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Key to version, checksum and value, see [`encode`].
pub(super) const RECORDS: Records = TableDefinition::new("records");
/// Format and revision of the store.
pub(super) const STATE: TableDefinition<'static, &'static str, u64> = TableDefinition::new("state");
/// Key of [`STATE`]: the revision of the last commit.
pub(super) const REVISION_KEY: &str = "revision";

/// The store at one revision.
pub(super) struct View {
    revision: Revision,
    records: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl View {
    pub(super) fn new(database: &Database) -> Result<Self, Fault> {
        let read = database.begin_read()?;
        let revision = read.open_table(STATE)?.get(REVISION_KEY)?.map(|revision| revision.value());
        let Some(revision) = revision else { return Err(damaged("it has no revision")) };
        Ok(Self { revision: Revision(revision), records: read.open_table(RECORDS)? })
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Versioned>, Fault> {
        get(&self.records, key)
    }

    pub(super) fn range(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, Fault> {
        range(&self.records, prefix, after, limit)
    }

    pub(super) fn last_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Versioned)>, Fault> {
        let Some((start, end)) = bounds_before(prefix, key) else { return Ok(None) };
        let Some(entry) = self.records.range::<&[u8]>(&*start..&*end)?.next_back() else {
            return Ok(None);
        };
        let (key, record) = entry?;
        let key = key.value();
        Ok(Some((Bytes::copy_from_slice(key), decode(key, record.value())?)))
    }
}

pub(super) fn get(
    records: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Versioned>, Fault> {
    match records.get(key)? {
        Some(record) => Ok(Some(decode(key, record.value())?)),
        None => Ok(None),
    }
}

pub(super) fn range(
    records: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
    after: &[u8],
    limit: usize,
) -> Result<Vec<(Bytes, Versioned)>, Fault> {
    let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
    let mut found = Vec::new();
    for entry in records.range::<&[u8]>((start, Bound::Unbounded))? {
        if found.len() == limit {
            break;
        }
        let (key, record) = entry?;
        let key = key.value();
        if !key.starts_with(prefix) {
            break;
        }
        found.push((Bytes::copy_from_slice(key), decode(key, record.value())?));
    }
    Ok(found)
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

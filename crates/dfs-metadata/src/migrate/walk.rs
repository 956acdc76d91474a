//! A walk over two stores side by side.

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_types::{Level, Sha256Hasher};

use super::MigrateError;
use crate::codec::Record as _;
use crate::engine::{Engine, EngineError, Write};
use crate::records::setting::Cluster;
use crate::{Error, keys};

/// Keys of each store compared in one step.
const PAGE: usize = 500;

/// Totals of the expected target content.
pub(super) struct Totals {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) checksum: Sha256Hasher,
}

/// Walks over the keys of both stores in order. Each page is read at a separate snapshot: nobody
/// else writes, and a long snapshot would keep a redb file from reusing its pages, and would be
/// compacted away by etcd.
pub(super) struct Walk<'a> {
    source: &'a dyn Engine,
    target: &'a dyn Engine,
    after: Bytes,
    is_over: bool,
    pub(super) totals: Totals,
}

impl<'a> Walk<'a> {
    pub(super) fn new(source: &'a dyn Engine, target: &'a dyn Engine) -> Self {
        let totals = Totals { keys: 0, bytes: 0, checksum: Sha256Hasher::new() };
        Self { source, target, after: Bytes::new(), is_over: false, totals }
    }

    /// Returns the writes that correct the next keys of the target; `None` after the last.
    pub(super) async fn step(&mut self) -> Result<Option<Vec<Write>>, MigrateError> {
        if self.is_over {
            return Ok(None);
        }
        let source = page(self.source, &self.after).await;
        let mut source = source.map_err(|error| MigrateError::Source(error.into()))?;
        let target = page(self.target, &self.after).await;
        let mut target = target.map_err(|error| MigrateError::Target(error.into()))?;
        // A full page says nothing about the keys after it.
        let ends = [&source, &target].map(|page| {
            let last = (page.len() >= PAGE).then(|| page.last_key_value())?;
            last.map(|(key, _)| key.clone())
        });
        if let Some(end) = ends.into_iter().flatten().min() {
            for page in [&mut source, &mut target] {
                page.retain(|key, _| *key <= end);
            }
            self.after = end;
        } else {
            self.is_over = true;
        }
        target.remove(&keys::MIGRATION);
        let mut differences = Vec::new();
        for (key, value) in source {
            let Some(value) = copied(&key, value).map_err(MigrateError::Source)? else { continue };
            self.totals.add(&key, &value);
            if target.remove(&key).as_ref() != Some(&value) {
                differences.push(Write::Put(key, value));
            }
        }
        differences.extend(target.into_keys().map(Write::Delete));
        Ok(Some(differences))
    }
}

async fn page(engine: &dyn Engine, after: &[u8]) -> Result<BTreeMap<Bytes, Bytes>, EngineError> {
    let found = engine.snapshot().await?.range(&[], after, PAGE).await?;
    Ok(found.into_iter().map(|(key, found)| (key, found.value)).collect())
}

/// Returns the target's value of a key; `None` for keys that are not copied.
fn copied(key: &Bytes, value: Bytes) -> Result<Option<Bytes>, Error> {
    if *key == keys::CLUSTER {
        let cluster = Cluster::decode(key, &value, Level::NEWEST)?;
        let incarnation = cluster.incarnation.next();
        return Ok(Some(Cluster { incarnation, ..cluster }.encode(Level::FIRST).into()));
    }
    if key.starts_with(keys::LEASES) && key.ends_with(keys::RENEWAL) {
        return Ok(None);
    }
    Ok(Some(value))
}

impl Totals {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.keys += 1;
        for part in [key, value] {
            self.bytes += part.len() as u64;
            self.checksum.update(&(part.len() as u64).to_be_bytes());
            self.checksum.update(part);
        }
    }
}

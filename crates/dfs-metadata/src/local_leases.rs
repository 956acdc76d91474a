//! Leases for engines whose store is open in a single process.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dfs_types::LeaseEpoch;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::engine::lease::{
    LeaseGrant, decode_epoch, encode_epoch, lease_epoch_key, lease_renewal_key,
};
use crate::engine::{Commit, Condition, Engine, EngineError, Outcome, Versioned, Write};

/// Holders of leases, by this process's clock.
///
/// Renewals stay in memory, so that an idle process writes nothing; the epoch is durable and grows
/// with each holder. A restart forgets the holders: the first to ask takes over with a new epoch,
/// even if it held the lease before.
#[derive(Debug, Default)]
pub struct LocalLeases {
    held: Mutex<BTreeMap<String, Held>>,
}

#[derive(Debug)]
struct Held {
    holder: String,
    until: Instant,
    grant: LeaseGrant,
}

impl LocalLeases {
    /// Implements [`Engine::lease`] on the keys of `engine`.
    pub async fn lease(
        &self,
        engine: &dyn Engine,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        let mut held = self.held.lock().await;
        let epoch = engine.snapshot().await?.get(&lease_epoch_key(name)).await?;
        if let Some(current) = held.get_mut(name)
            && epoch.as_ref().is_some_and(|at| at.version == current.grant.epoch_version)
        {
            if current.holder == holder {
                current.until = Instant::now() + ttl;
                return Ok(Some(current.grant));
            }
            if Instant::now() < current.until {
                return Ok(None);
            }
        }
        let Some(grant) = take(engine, name, holder, epoch, condition).await? else {
            return Ok(None);
        };
        let until = Instant::now() + ttl;
        held.insert(name.to_owned(), Held { holder: holder.to_owned(), until, grant });
        Ok(Some(grant))
    }
}

/// Writes the next epoch; `None` when another holder was faster, or `further` does not hold.
async fn take(
    engine: &dyn Engine,
    name: &str,
    holder: &str,
    before: Option<Versioned>,
    further: Option<&Condition>,
) -> Result<Option<LeaseGrant>, EngineError> {
    let key = lease_epoch_key(name);
    let (epoch, condition) = match before {
        None => (LeaseEpoch(1), Condition::Absent(key.clone())),
        Some(at) => (decode_epoch(&at.value)?.next(), Condition::Version(key.clone(), at.version)),
    };
    let commit = Commit {
        conditions: [condition].into_iter().chain(further.cloned()).collect(),
        writes: vec![
            Write::Put(key, encode_epoch(epoch)),
            Write::Put(lease_renewal_key(name), Bytes::copy_from_slice(holder.as_bytes())),
        ],
    };
    match engine.commit_batch(vec![commit]).await?.first() {
        Some(Outcome::Committed(epoch_version)) => {
            Ok(Some(LeaseGrant { epoch, epoch_version: *epoch_version }))
        }
        _ => Ok(None),
    }
}

//! Leases of the engine on leases of etcd.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dfs_etcd::etcdserverpb::{RangeRequest, TxnRequest};
use dfs_etcd::mvccpb::KeyValue;
use dfs_etcd::{Client, Error, RetryBudget};
use dfs_metadata::engine::lease::{
    LeaseGrant, decode_epoch, encode_epoch, lease_epoch_key, lease_renewal_key,
};
use dfs_metadata::engine::{Condition, EngineError};

use dfs_types::{LeaseEpoch, Revision};
use tokio::sync::Mutex;

use super::commit_group::compare_of;
use super::failure::engine_error;
use super::keys::Keys;
use super::requests::{found, has_version, is_absent, put, read, revision_of};

/// Time limit of taking a lease; its holder tries again soon.
const TAKE_BUDGET: Duration = Duration::from_secs(1);

/// Leases held by this handle.
///
/// The renewal key contains the holder and is attached to a lease of etcd, which removes it when it
/// is not renewed: time is etcd's, in whole seconds and at least about two. The epoch key stays. A
/// holder that returns through another handle takes over from itself at once, with a new epoch.
#[derive(Debug)]
pub(super) struct Leases {
    client: Client,
    keys: Keys,
    held: Mutex<BTreeMap<String, Held>>,
}

#[derive(Debug, Clone)]
struct Held {
    holder: String,
    ttl: Duration,
    /// Id of the lease of etcd.
    lease: i64,
    grant: LeaseGrant,
}

/// State of a lease in etcd.
struct Record {
    renewal: Option<KeyValue>,
    epoch: Option<KeyValue>,
}

impl Leases {
    pub(super) fn new(client: Client, keys: Keys) -> Self {
        Self { client, keys, held: Mutex::default() }
    }

    /// Implements [`Engine::lease`](dfs_metadata::engine::Engine::lease).
    pub(super) async fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<LeaseGrant>, EngineError> {
        let mut held = self.held.lock().await;
        if let Some(current) = held.get(name).filter(|current| current.holder == holder).cloned() {
            if let Some(renewed) = self.renew(name, current, ttl).await? {
                let grant = renewed.grant;
                held.insert(name.to_owned(), renewed);
                return Ok(Some(grant));
            }
            held.remove(name);
        }
        let taken = self.take(name, holder, ttl, condition).await?;
        let grant = taken.as_ref().map(|taken| taken.grant);
        held.extend(taken.map(|taken| (name.to_owned(), taken)));
        Ok(grant)
    }

    /// Renews a held lease; `None` when it was lost.
    async fn renew(
        &self,
        name: &str,
        held: Held,
        ttl: Duration,
    ) -> Result<Option<Held>, EngineError> {
        match self.client.keep_lease(held.lease).await {
            Err(Error::LeaseGone) => return Ok(None),
            result => result.map_err(engine_error)?,
        }
        // etcd's lease may outlive the key.
        let Record { renewal: Some(renewal), epoch: Some(epoch) } = self.read(name).await? else {
            return Ok(None);
        };
        let is_ours =
            renewal.lease == held.lease && epoch.mod_revision as u64 == held.grant.epoch_version.0;
        if !is_ours {
            return Ok(None);
        }
        if ttl == held.ttl {
            return Ok(Some(held));
        }
        let writes = |lease| vec![put(renewal.key.clone(), renewal.value.clone(), lease)];
        let record = Record { renewal: Some(renewal.clone()), epoch: Some(epoch) };
        let Some((lease, _)) = self.write(name, &record, ttl, None, writes).await? else {
            return Ok(None);
        };
        // Nothing is attached to it any more.
        drop(self.client.revoke_lease(held.lease).await);
        Ok(Some(Held { ttl, lease, ..held }))
    }

    /// Takes the lease; `None` when another holds it, or was faster, or `condition` does not hold.
    async fn take(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        condition: Option<&Condition>,
    ) -> Result<Option<Held>, EngineError> {
        let record = self.read(name).await?;
        if record.renewal.as_ref().is_some_and(|renewal| renewal.value != holder.as_bytes()) {
            return Ok(None);
        }
        let epoch = match &record.epoch {
            None => LeaseEpoch(1),
            Some(before) => decode_epoch(&before.value)?.next(),
        };
        let writes = |lease| {
            let holder = Bytes::copy_from_slice(holder.as_bytes());
            vec![
                put(self.keys.user(&lease_renewal_key(name)), holder, lease),
                put(self.keys.user(&lease_epoch_key(name)), encode_epoch(epoch), 0),
            ]
        };
        let taken = self.write(name, &record, ttl, condition, writes).await?;
        let Some((lease, revision)) = taken else {
            return Ok(None);
        };
        let grant = LeaseGrant { epoch, epoch_version: Revision(revision as u64) };
        Ok(Some(Held { holder: holder.to_owned(), ttl, lease, grant }))
    }

    /// Writes under a new lease of etcd, if the record is unchanged and `condition` holds. Returns
    /// that lease and the revision of the writes.
    async fn write(
        &self,
        name: &str,
        before: &Record,
        ttl: Duration,
        condition: Option<&Condition>,
        writes: impl Fn(i64) -> Vec<dfs_etcd::etcdserverpb::RequestOp>,
    ) -> Result<Option<(i64, i64)>, EngineError> {
        let unchanged = |key: Bytes, before: &Option<KeyValue>| match before {
            None => is_absent(self.keys.user(&key), Bytes::new()),
            Some(before) => has_version(self.keys.user(&key), before.mod_revision as u64),
        };
        let lease = self.client.grant_lease(ttl).await.map_err(engine_error)?;
        let mut compare = vec![
            unchanged(lease_renewal_key(name), &before.renewal),
            unchanged(lease_epoch_key(name), &before.epoch),
        ];
        compare.extend(condition.map(|condition| compare_of(condition, &self.keys)));
        let request = TxnRequest { compare, success: writes(lease), failure: vec![] };
        let answer = self.client.txn(request, &mut RetryBudget::new(TAKE_BUDGET)).await;
        if let Ok(answer) = &answer
            && answer.succeeded
        {
            return Ok(Some((lease, revision_of(answer.header.as_ref()))));
        }
        // Whatever the outcome: without its lease only the epoch remains.
        drop(self.client.revoke_lease(lease).await);
        answer.map(|_| None).map_err(engine_error)
    }

    async fn read(&self, name: &str) -> Result<Record, EngineError> {
        let get = |key: Bytes| {
            let key = self.keys.user(&key);
            read(RangeRequest { key, ..<_>::default() })
        };
        let success = vec![get(lease_renewal_key(name)), get(lease_epoch_key(name))];
        let request = TxnRequest { success, ..<_>::default() };
        let answer = self.client.read_txn(request).await.map_err(engine_error)?;
        let mut found = answer.responses.into_iter().map(|one| found(one).into_iter().next());
        Ok(Record { renewal: found.next().flatten(), epoch: found.next().flatten() })
    }
}

//! Periodic compaction, which etcd does not do by itself.

use std::time::Duration;

use bytes::Bytes;
use dfs_etcd::etcdserverpb::{RangeRequest, TxnRequest};
use dfs_etcd::{Client, Error, RetryBudget};

use super::keys::Keys;
use super::requests::{found, has_writes, put, read, revision_of};

/// Time limit of a round's transaction.
const ROUND_BUDGET: Duration = Duration::from_secs(1);

/// State seen in the previous round.
#[derive(Debug, Default)]
struct Seen {
    /// Number of writes of the key shared by all compacting handles.
    writes: i64,
    /// Revision of the store; 0 before the first round.
    revision: i64,
}

/// Compacts every `interval` to the revision of one interval ago, unless another handle has: the
/// first to write the key in an interval compacts. Runs until aborted.
pub(super) async fn run(client: Client, keys: Keys, interval: Duration) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(interval).await;
        match round(&client, &keys, &mut seen).await {
            Ok(()) | Err(Error::Compacted) => {}
            Err(error) => tracing::warn!(%error, "cannot compact the metadata in etcd"),
        }
    }
}

async fn round(client: &Client, keys: &Keys, seen: &mut Seen) -> Result<(), Error> {
    let key = keys.compaction();
    let request = TxnRequest {
        compare: vec![has_writes(key.clone(), seen.writes)],
        success: vec![put(key.clone(), Bytes::from(seen.revision.to_string()), 0)],
        failure: vec![read(RangeRequest { key: key.clone(), ..<_>::default() })],
    };
    let before = seen.revision;
    let is_ours = match client.txn(request, &mut RetryBudget::new(ROUND_BUDGET)).await {
        Ok(answer) => {
            seen.revision = revision_of(answer.header.as_ref());
            let written = answer.responses.into_iter().flat_map(found).next();
            seen.writes = match written {
                _ if answer.succeeded => seen.writes + 1,
                found => found.map_or(0, |found| found.version),
            };
            answer.succeeded
        }
        // A full store accepts no writes, and needs compaction most.
        Err(Error::NoSpace(_)) => {
            let request = RangeRequest { key, count_only: true, ..<_>::default() };
            seen.revision = revision_of(client.range(request).await?.header.as_ref());
            true
        }
        Err(error) => return Err(error),
    };
    if is_ours && before > 0 {
        client.compact(before).await?;
        tracing::debug!(revision = before, "compacted the metadata in etcd");
    }
    Ok(())
}

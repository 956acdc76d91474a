//! Reads at one revision.

use async_trait::async_trait;
use bytes::Bytes;
use dfs_etcd::etcdserverpb::{RangeRequest, TxnRequest};
use dfs_etcd::mvccpb::KeyValue;
use dfs_etcd::{Client, Error};
use dfs_metadata::engine::{EngineError, Snapshot, Versioned, bounds_before};
use dfs_types::Revision;

use super::failure::read_error;
use super::keys::Keys;
use super::requests::{found, read};

/// Maximum number of keys read per transaction.
const KEYS_MAX: usize = 100;
/// Number of keys of a range read at a time.
const PAGE_MAX: usize = 500;

/// Keys of a range in which the last one is searched by reading them all.
const LAST_MAX: usize = 128;

/// The store at a revision. A member replies from its own state; one that does not know the
/// revision yet asks the others first.
#[derive(Debug)]
pub(super) struct EtcdSnapshot {
    pub(super) client: Client,
    pub(super) keys: Keys,
    pub(super) revision: i64,
}

impl EtcdSnapshot {
    async fn read_keys(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, EngineError> {
        let request = |serializable| {
            let one = |key: &Bytes| {
                let key = self.keys.user(key);
                let revision = self.revision;
                read(RangeRequest { key, revision, serializable, ..<_>::default() })
            };
            TxnRequest { success: keys.iter().map(one).collect(), ..<_>::default() }
        };
        let answer = match self.client.read_txn(request(true)).await {
            Err(Error::FutureRevision) => self.client.read_txn(request(false)).await,
            answer => answer,
        };
        let responses = answer.map_err(|error| read_error(error, self.revision))?.responses;
        let first = |response| found(response).first().map(versioned);
        Ok(responses.into_iter().map(first).collect())
    }

    async fn read_range(&self, mut request: RangeRequest) -> Result<Vec<KeyValue>, EngineError> {
        request.serializable = true;
        let answer = match self.client.range(request.clone()).await {
            Err(Error::FutureRevision) => {
                request.serializable = false;
                self.client.range(request).await
            }
            answer => answer,
        };
        Ok(answer.map_err(|error| read_error(error, self.revision))?.kvs)
    }

    /// Returns the engine's key, copied like the value.
    fn key(&self, found: &KeyValue) -> Bytes {
        Bytes::copy_from_slice(&self.keys.strip(&found.key))
    }
}

fn versioned(found: &KeyValue) -> Versioned {
    // Copied, as it would keep the whole reply alive.
    let value = Bytes::copy_from_slice(&found.value);
    Versioned { value, version: Revision(found.mod_revision as u64) }
}

/// Returns the first key after another one.
fn after(key: &[u8]) -> Vec<u8> {
    [key, b"\0"].concat()
}

/// Returns a key about halfway between two, greater than `low` and at most `high`, read as numbers.
fn between(low: &[u8], high: &[u8]) -> Vec<u8> {
    let digits = low.len().max(high.len()) + 1;
    let digit = |key: &[u8], at: usize| u16::from(key.get(at).copied().unwrap_or_default());
    let (mut sum, mut carry) = (vec![0; digits], 0);
    for at in (0..digits).rev() {
        let total = digit(low, at) + digit(high, at) + carry;
        (sum[at], carry) = (total & 0xff, total >> 8);
    }
    let mut half = Vec::with_capacity(digits);
    for digit in sum {
        let total = carry << 8 | digit;
        half.push((total / 2) as u8);
        carry = total % 2;
    }
    half.max(after(low)).min(high.to_vec())
}

#[async_trait]
impl Snapshot for EtcdSnapshot {
    fn revision(&self) -> Revision {
        Revision(self.revision as u64)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        let (key, revision) = (self.keys.user(key), self.revision);
        let found = self.read_range(RangeRequest { key, revision, ..<_>::default() }).await?;
        Ok(found.first().map(versioned))
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Versioned>>, EngineError> {
        let mut all = Vec::with_capacity(keys.len());
        for some in keys.chunks(KEYS_MAX) {
            all.extend(self.read_keys(some).await?);
        }
        Ok(all)
    }

    async fn range(
        &self,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Versioned)>, EngineError> {
        let range_end = self.keys.end(prefix);
        let mut key = if after < prefix {
            self.keys.user(prefix)
        } else {
            self.keys.user(&[after, b"\0"].concat())
        };
        let mut all = Vec::new();
        while all.len() < limit && key < range_end {
            let page = (limit - all.len()).min(PAGE_MAX);
            let request = RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: page as i64,
                revision: self.revision,
                ..<_>::default()
            };
            let found = self.read_range(request).await?;
            let is_last = found.len() < page;
            key = found
                .last()
                .map(|last| [&last.key, &b"\0"[..]].concat().into())
                .unwrap_or_default();
            all.extend(found.iter().map(|kv| (self.key(kv), versioned(kv))));
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    async fn last_before(
        &self,
        prefix: &[u8],
        key: &[u8],
    ) -> Result<Option<(Bytes, Versioned)>, EngineError> {
        // etcd reads a whole range with its values before it sorts it, so it is not asked to: a range
        // of few keys is read in order, and a larger one is halved.
        let Some((start, end)) = bounds_before(prefix, key) else { return Ok(None) };
        let (mut low, mut high) = (start, end);
        let mut known = None;
        loop {
            let request = RangeRequest {
                key: self.keys.user(&low),
                range_end: self.keys.user(&high),
                limit: LAST_MAX as i64,
                revision: self.revision,
                ..<_>::default()
            };
            let found = self.read_range(request).await?;
            let is_whole = found.len() < LAST_MAX;
            match found.last().map(|last| (self.key(last), versioned(last))) {
                Some(last) if is_whole => return Ok(Some(last)),
                Some(last) => {
                    low = between(&last.0, &high);
                    known = Some(last);
                }
                // The upper half is empty.
                None => match &known {
                    Some((last, _)) if low > after(last) => {
                        high = low;
                        low = after(last);
                    }
                    _ => return Ok(known),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_between_two_is_greater_than_the_lower_and_about_halfway() {
        assert_eq!(between(b"\x00", b"\x80"), b"\x40\x00");
        assert_eq!(between(b"a\x00\xff", b"a\x01\x01"), b"a\x01\x00\x00");
        assert_eq!(between(b"\xff\xff", b"\xff\xff\xff"), b"\xff\xff\x7f\x80");
        // Nothing but keys that begin with the lower one is between these.
        assert_eq!(between(b"a", b"a\x00"), b"a\x00");
        assert_eq!(between(b"a", b"a\x00\x00"), b"a\x00\x00");
        assert_eq!(between(b"", b"\x01"), b"\x00\x80");
    }
}

//! Commits of one handle, one transaction at a time, and their outcomes.
//!
//! Each transaction also writes the **marker** of the handle, a key under a lease, conditioned on
//! the marker's version. When a reply is lost, another transaction either overwrites the marker
//! first, so that the lost one can never take effect, or finds what that one has written:
//!
//! ```text
//!            answered                          ┌─ was ours: committed
//!  send ──┬───────────► committed / conflict   │
//!         └─ lost ──► overwrite the marker? ───┼─ overwritten: prevented, send again
//!                          ▲        │          └─ gone with its lease: unknown
//!                          └─ lost ─┘ out of time: unknown, settled before the next
//! ```

use std::time::Duration;

use bytes::Bytes;
use dfs_etcd::etcdserverpb::{RangeRequest, TxnRequest, TxnResponse};
use dfs_etcd::mvccpb::KeyValue;
use dfs_etcd::{Client, Error, RetryBudget};
use dfs_metadata::engine::{Commit, EngineError, Outcome};
use dfs_types::{OsRandom, Random as _, Revision};
use tokio::sync::watch;

use super::commit_group::{Group, Refusal};
use super::counters::Counters;
use super::failure::engine_error;
use super::keys::Keys;
use super::requests::{found, has_version, is_absent, put, read, revision_of};

/// Time after which a batch is no longer sent or settled.
const COMMIT_BUDGET: Duration = Duration::from_secs(10);
/// Lifetime of a handle's marker that is not kept alive. Far longer than anyone waits for a lost
/// reply.
pub(super) const MARKER_TTL: Duration = Duration::from_mins(5);

/// The writer of a handle.
#[derive(Debug)]
pub(super) struct Writer {
    client: Client,
    keys: Keys,
    marker: Option<Marker>,
    /// Greatest number that was, or may have been, written to a marker.
    number: u64,
    unsettled: Option<Unsettled>,
    counters: Counters,
    /// The lease to keep alive; 0 for none.
    lease: watch::Sender<i64>,
}

#[derive(Debug, Clone)]
struct Marker {
    key: Bytes,
    lease: i64,
    version: i64,
}

/// A transaction without a reply.
#[derive(Debug, Clone, Copy)]
struct Unsettled {
    /// The number that it writes to the marker.
    number: u64,
    /// The number written to prevent it.
    instead: u64,
}

/// The fate of a transaction.
enum Fate {
    Committed(i64),
    /// The transaction did not and will never take effect.
    Prevented,
}

enum Verdict {
    Committed(i64),
    /// A condition of the group does not hold; nothing of it took effect.
    Refused(Refusal),
}

impl Writer {
    /// Creates a writer, and the receiver of its marker's lease.
    pub(super) fn new(client: Client, keys: Keys) -> (Self, watch::Receiver<i64>) {
        let (lease, leases) = watch::channel(0);
        let writer = Self {
            client,
            keys,
            marker: None,
            number: 0,
            unsettled: None,
            counters: Counters::default(),
            lease,
        };
        (writer, leases)
    }

    /// Implements [`Engine::commit_batch`](dfs_metadata::engine::Engine::commit_batch). Each round
    /// decides at least one commit, or learns a counter that another handle has changed. A batch
    /// that partly took effect before an error has an unknown outcome.
    pub(super) async fn commit_batch(
        &mut self,
        commits: &[Commit],
    ) -> Result<Vec<Outcome>, EngineError> {
        let mut budget = RetryBudget::new(COMMIT_BUDGET);
        self.settle_earlier(&mut budget).await?;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; commits.len()];
        let mut has_committed = false;
        loop {
            let open = outcomes.iter().zip(commits).enumerate();
            let open = open.filter(|(_, (outcome, _))| outcome.is_none());
            let open = open.map(|(index, (_, commit))| (index, commit));
            let group = Group::gather(open, &self.counters);
            if group.commits().is_empty() {
                return Ok(outcomes.into_iter().flatten().collect());
            }
            match self.commit_group(&group, &mut budget).await {
                Ok(Verdict::Committed(revision)) => {
                    self.counters.learn(group.counters_at(revision));
                    for (index, commit) in group.commits() {
                        let outcome = match group.refused(*index) {
                            Some(condition) => Outcome::Conflict { condition },
                            None => Outcome::Committed(own_revision(commit, revision)),
                        };
                        has_committed |=
                            !commit.writes.is_empty() && matches!(outcome, Outcome::Committed(_));
                        outcomes[*index] = Some(outcome);
                    }
                }
                Ok(Verdict::Refused(refusal)) => {
                    self.counters.learn(refusal.counters);
                    for (index, condition) in refusal.conflicts {
                        outcomes[index] = Some(Outcome::Conflict { condition });
                    }
                }
                Err(error) if has_committed => {
                    return Err(EngineError::OutcomeUnknown(format!(
                        "a part of the batch is committed, then: {error}"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a group until it is decided.
    async fn commit_group(
        &mut self,
        group: &Group<'_>,
        budget: &mut RetryBudget,
    ) -> Result<Verdict, EngineError> {
        loop {
            let marker = self.marker(budget).await?;
            self.number += 1;
            let number = self.number;
            match self.client.txn(self.request(group, &marker, number), budget).await {
                Ok(answer) if answer.succeeded => {
                    let revision = revision_of(answer.header.as_ref());
                    self.marker = Some(Marker { version: revision, ..marker });
                    return Ok(Verdict::Committed(revision));
                }
                Ok(answer) => {
                    let what = match refusal(group, &marker, answer) {
                        Some(refusal) if !refusal.conflicts.is_empty() || budget.is_left() => {
                            return Ok(Verdict::Refused(refusal));
                        }
                        Some(_) => "other processes constantly add to the same counters",
                        None => {
                            self.forget_marker();
                            "the lease of this process in etcd keeps expiring"
                        }
                    };
                    if !budget.is_left() {
                        return Err(EngineError::Unavailable(what.to_owned()));
                    }
                }
                Err(error @ Error::Unreachable(_)) => {
                    if !budget.pause(self.client.members()).await {
                        return Err(engine_error(error));
                    }
                }
                Err(Error::NoAnswer(why)) => {
                    self.number += 1;
                    self.unsettled = Some(Unsettled { number, instead: self.number });
                    match self.settle(budget).await? {
                        Fate::Committed(revision) => return Ok(Verdict::Committed(revision)),
                        Fate::Prevented if budget.is_left() => {}
                        Fate::Prevented => return Err(EngineError::Unavailable(why)),
                    }
                }
                Err(error) => return Err(engine_error(error)),
            }
        }
    }

    fn request(&self, group: &Group<'_>, marker: &Marker, number: u64) -> TxnRequest {
        let mut compare = group.compares(&self.keys);
        compare.push(has_version(marker.key.clone(), marker.version as u64));
        let mut success = group.operations(&self.keys);
        success.push(put(marker.key.clone(), encode(number), marker.lease));
        let mut failure = group.reads(&self.keys);
        failure.push(read(RangeRequest { key: marker.key.clone(), ..<_>::default() }));
        TxnRequest { compare, success, failure }
    }

    /// Determines the outcome of a transaction of an earlier batch that was reported as unknown.
    /// Nothing of a new batch may be sent before.
    async fn settle_earlier(&mut self, budget: &mut RetryBudget) -> Result<(), EngineError> {
        if self.unsettled.is_none() {
            return Ok(());
        }
        match self.settle(budget).await {
            Err(error) if self.unsettled.is_some() => Err(match error {
                EngineError::OutcomeUnknown(why) => EngineError::Unavailable(why),
                error => error,
            }),
            // Decided, or never to be known: its callers have their result.
            _ => Ok(()),
        }
    }

    /// Determines the outcome of the unsettled transaction, preventing it if it has not taken
    /// effect.
    async fn settle(&mut self, budget: &mut RetryBudget) -> Result<Fate, EngineError> {
        let (Some(Unsettled { number, instead }), Some(marker)) =
            (self.unsettled, self.marker.clone())
        else {
            self.unsettled = None;
            return Ok(Fate::Prevented);
        };
        let request = TxnRequest {
            compare: vec![has_version(marker.key.clone(), marker.version as u64)],
            success: vec![put(marker.key.clone(), encode(instead), marker.lease)],
            failure: vec![read(RangeRequest { key: marker.key.clone(), ..<_>::default() })],
        };
        loop {
            match self.client.txn(request.clone(), budget).await {
                Ok(answer) => {
                    self.unsettled = None;
                    let version = revision_of(answer.header.as_ref());
                    if answer.succeeded {
                        self.marker = Some(Marker { version, ..marker });
                        return Ok(Fate::Prevented);
                    }
                    let seen: Option<KeyValue> =
                        answer.responses.into_iter().flat_map(found).next();
                    let version = seen.as_ref().map_or(0, |seen| seen.mod_revision);
                    let written = seen.and_then(|seen| decode(&seen.value));
                    self.marker = Some(Marker { version, ..marker });
                    if written == Some(number) {
                        return Ok(Fate::Committed(version));
                    }
                    if written == Some(instead) {
                        return Ok(Fate::Prevented);
                    }
                    self.forget_marker();
                    return Err(EngineError::OutcomeUnknown(
                        "the lease of this process in etcd ended before the outcome was determined"
                            .to_owned(),
                    ));
                }
                Err(Error::NoAnswer(why) | Error::Unreachable(why)) => {
                    if !budget.pause(self.client.members()).await {
                        return Err(EngineError::OutcomeUnknown(why));
                    }
                }
                Err(error) => {
                    // Otherwise the marker may still exist, and the late transaction take effect.
                    if matches!(error, Error::LeaseGone) {
                        self.forget_marker();
                        self.unsettled = None;
                    }
                    return Err(EngineError::OutcomeUnknown(error.to_string()));
                }
            }
        }
    }

    /// Returns the marker, creating it if needed.
    async fn marker(&mut self, budget: &mut RetryBudget) -> Result<Marker, EngineError> {
        if let Some(marker) = &self.marker {
            return Ok(marker.clone());
        }
        loop {
            let lease = self.client.grant_lease(MARKER_TTL).await.map_err(engine_error)?;
            // A new name each time, so that markers cannot be confused.
            let mut id = [0; 16];
            OsRandom.fill(&mut id);
            let key = self.keys.marker(u128::from_be_bytes(id));
            let request = TxnRequest {
                compare: vec![is_absent(key.clone(), Bytes::new())],
                success: vec![put(key.clone(), encode(0), lease)],
                failure: vec![],
            };
            match self.client.txn(request, budget).await {
                Ok(answer) if answer.succeeded => {
                    let version = revision_of(answer.header.as_ref());
                    let marker = Marker { key, lease, version };
                    self.lease.send_replace(lease);
                    self.marker = Some(marker.clone());
                    return Ok(marker);
                }
                Ok(_) | Err(Error::LeaseGone | Error::NoAnswer(_) | Error::Unreachable(_))
                    if budget.pause(self.client.members()).await => {}
                Ok(_) => return Err(engine_error(Error::LeaseGone)),
                Err(error) => return Err(engine_error(error)),
            }
        }
    }

    fn forget_marker(&mut self) {
        self.marker = None;
        self.lease.send_replace(0);
    }
}

/// Returns why a group was refused; `None` when the marker was the reason.
fn refusal(group: &Group<'_>, marker: &Marker, answer: TxnResponse) -> Option<Refusal> {
    let mut responses = answer.responses;
    let seen = responses.pop().map(found)?.into_iter().next()?;
    let refusal = group.refusal(responses);
    let is_decided = !refusal.conflicts.is_empty() || refusal.is_stale;
    (seen.mod_revision == marker.version && is_decided).then_some(refusal)
}

/// Returns the revision reported for a commit. One without writes was judged on the state just
/// before the transaction, which later commits of the group may have changed.
fn own_revision(commit: &Commit, transaction: i64) -> Revision {
    let before = u64::from(commit.writes.is_empty());
    Revision(transaction as u64 - before)
}

fn encode(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn decode(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

//! Conformance checks for engines, which panic on a violation.
//!
//! A correct engine passes all of them. [`engine_conformance!`](crate::engine_conformance)
//! generates a test for each:
//!
//! ```text
//! mod conformance {
//!     dfs_metadata::engine_conformance!(super::MyHarness::new());
//! }
//! ```

mod additions;
mod commits;
mod durability;
mod forwarding;
mod histories;
mod large;
mod leases;
mod model;
mod reads;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::Revision;

use crate::engine::{Commit, Condition, Engine, Outcome, Snapshot, Versioned, Watch, Write};

pub use additions::{
    added_keys_have_versions_and_changes, additions_survive, additions_within_a_batch_are_summed,
    concurrent_additions_are_not_lost, impossible_additions_are_refused, many_additions_per_commit,
};
pub use commits::{
    absent_condition, batch_is_ordered_and_independent, commit_without_writes,
    concurrent_increments, conditions_see_the_state_before, limits, prefix_empty_condition,
    several_writes_of_one_key, version_condition,
};
pub use durability::{acknowledged_writes_survive, revisions_grow_across_reopening};
pub use forwarding::{ForwardingEngine, ForwardingSnapshot, Read};
pub use histories::namespace_history;
pub use large::file_of_many_extents;
pub use leases::{
    lease_fences_an_earlier_holder, lease_has_one_holder, lease_requires_its_condition,
    unrenewed_lease_is_passed_on,
};
pub use model::{random_histories, random_history};
pub use reads::{
    acknowledged_writes_are_seen_everywhere, empty_store, get_many_keeps_order,
    last_before_is_isolated, last_before_respects_boundaries, last_before_searches_many_keys,
    ranges_are_paged, ranges_respect_boundaries, snapshots_are_isolated,
    stalled_calls_hold_up_no_other, versions_follow_commits,
};
pub use watches::{lagging_watch, watch_from_the_past, watch_reports_in_order, watch_waits};

/// Provides one check with a separate store, which starts empty.
#[async_trait]
pub trait Harness: Send {
    /// Returns a handle on the store: another client of it, where the engine has clients.
    async fn engine(&mut self) -> Arc<dyn Engine>;

    /// Closes the store, all handles of which were dropped, so that the next [`Self::engine`] opens
    /// it again. Returns `false` when this engine's stores do not outlive their process.
    async fn reopen(&mut self) -> bool;
}

/// Generates a `#[tokio::test]` for each check; the expression creates its [`Harness`].
#[macro_export]
macro_rules! engine_conformance {
    ($harness:expr) => {
        $crate::engine_conformance! { $harness =>
            absent_condition
            acknowledged_writes_are_seen_everywhere
            acknowledged_writes_survive
            added_keys_have_versions_and_changes
            additions_within_a_batch_are_summed
            concurrent_additions_are_not_lost
            additions_survive
            batch_is_ordered_and_independent
            commit_without_writes
            concurrent_increments
            conditions_see_the_state_before
            empty_store
            get_many_keeps_order
            impossible_additions_are_refused
            last_before_is_isolated
            last_before_respects_boundaries
            last_before_searches_many_keys
            lease_has_one_holder
            lease_fences_an_earlier_holder
            lease_requires_its_condition
            unrenewed_lease_is_passed_on
            limits
            many_additions_per_commit
            prefix_empty_condition
            random_histories
            ranges_are_paged
            ranges_respect_boundaries
            revisions_grow_across_reopening
            several_writes_of_one_key
            snapshots_are_isolated
            stalled_calls_hold_up_no_other
            version_condition
            versions_follow_commits
            watch_from_the_past
            watch_reports_in_order
            watch_waits
            lagging_watch
        }
    };
    ($harness:expr => $($check:ident)*) => {
        $(
            #[tokio::test]
            async fn $check() {
                $crate::conformance::$check(&mut $harness).await;
            }
        )*
    };
}

/// Deadline for expected events.
const DEADLINE: Duration = Duration::from_mins(1);

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Write {
    Write::Put(Bytes::copy_from_slice(key.as_ref()), Bytes::copy_from_slice(value.as_ref()))
}

fn delete(key: impl AsRef<[u8]>) -> Write {
    Write::Delete(Bytes::copy_from_slice(key.as_ref()))
}

fn add(key: impl AsRef<[u8]>, delta: i64) -> Write {
    Write::Add(Bytes::copy_from_slice(key.as_ref()), delta)
}

async fn try_commit(
    engine: &dyn Engine,
    conditions: Vec<Condition>,
    writes: Vec<Write>,
) -> Outcome {
    let commit = Commit { conditions, writes };
    let outcomes = engine.commit_batch(vec![commit]).await.expect("the engine commits");
    assert_eq!(outcomes.len(), 1, "one outcome for each commit");
    outcomes[0]
}

async fn write(engine: &dyn Engine, writes: Vec<Write>) -> Revision {
    match try_commit(engine, vec![], writes).await {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict { .. } => unreachable!("a commit without conditions had a conflict"),
    }
}

fn committed(outcome: Outcome) -> Revision {
    assert!(matches!(outcome, Outcome::Committed(_)), "not committed, but {outcome:?}");
    let Outcome::Committed(revision) = outcome else { return Revision::default() };
    revision
}

async fn snapshot(engine: &dyn Engine) -> Box<dyn Snapshot> {
    engine.snapshot().await.expect("the engine gives a snapshot")
}

async fn get(engine: &dyn Engine, key: impl AsRef<[u8]>) -> Option<Versioned> {
    snapshot(engine).await.get(key.as_ref()).await.expect("the snapshot reads a key")
}

async fn value(engine: &dyn Engine, key: impl AsRef<[u8]>) -> Option<Bytes> {
    get(engine, key).await.map(|found| found.value)
}

/// Returns the keys of a range.
async fn keys(
    snapshot: &dyn Snapshot,
    prefix: impl AsRef<[u8]>,
    after: impl AsRef<[u8]>,
    limit: usize,
) -> Vec<Bytes> {
    let range = snapshot.range(prefix.as_ref(), after.as_ref(), limit).await;
    range.expect("the snapshot reads a range").into_iter().map(|(key, _)| key).collect()
}

async fn next(watch: &mut dyn Watch) -> crate::engine::Change {
    let change = tokio::time::timeout(DEADLINE, watch.next()).await;
    change.expect("the watch reports in time").expect("the watch continues")
}

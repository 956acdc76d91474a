//! The engine on etcd, with real members.
#![cfg(feature = "etcd")]

mod access;
mod answers;
mod conformance;
mod members;
mod proxy;
mod states;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_engines::etcd::{EtcdEngine, Options};
use dfs_etcd::Settings;
use dfs_metadata::engine::{Commit, Condition, Engine, EngineError, Outcome, Write};
use dfs_types::Revision;
use tokio::time::{Instant, sleep};

/// Deadline for expected events.
const DEADLINE: Duration = Duration::from_mins(1);
/// Polling interval.
const POLL: Duration = Duration::from_millis(10);

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        sleep(POLL).await;
    }
}

/// Returns a prefix unique in this process.
fn fresh_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn settings(members: Vec<String>) -> Settings {
    Settings { members, ..Settings::default() }
}

async fn open(members: Vec<String>, prefix: &str) -> EtcdEngine {
    EtcdEngine::open(&settings(members), prefix, Options::default()).await.unwrap()
}

fn put(key: &str, value: impl AsRef<[u8]>) -> Write {
    Write::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_ref()))
}

async fn write(engine: &EtcdEngine, writes: Vec<Write>) -> Result<Revision, EngineError> {
    let commit = Commit { conditions: vec![], writes };
    match engine.commit_batch(vec![commit]).await?[0] {
        Outcome::Committed(revision) => Ok(revision),
        Outcome::Conflict { .. } => panic!("a commit without conditions had a conflict"),
    }
}

async fn value(engine: &EtcdEngine, key: &str) -> Result<Option<Bytes>, EngineError> {
    let found = engine.snapshot().await?.get(key.as_bytes()).await?;
    Ok(found.map(|found| found.value))
}

/// Adds one to a counter with a single writer. `Err` leaves open whether it was added, if the error
/// does.
async fn increment(engine: &EtcdEngine) -> Result<u64, EngineError> {
    let key = Bytes::from_static(b"counter");
    let found = engine.snapshot().await?.get(&key).await?;
    let (condition, before) = match found {
        None => (Condition::Absent(key.clone()), 0),
        Some(found) => {
            let text = String::from_utf8(found.value.to_vec()).unwrap();
            (Condition::Version(key.clone(), found.version), text.parse::<u64>().unwrap())
        }
    };
    let after = before + 1;
    let writes = vec![Write::Put(key, Bytes::from(after.to_string()))];
    let outcome = engine.commit_batch(vec![Commit { conditions: vec![condition], writes }]).await?;
    assert!(matches!(outcome[0], Outcome::Committed(_)), "there is no other writer: {outcome:?}");
    Ok(after)
}

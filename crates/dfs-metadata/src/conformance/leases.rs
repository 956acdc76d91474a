//! Leases and their fences.

use std::time::Duration;

use tokio::time::Instant;

use super::{DEADLINE, Harness, committed, key, put, try_commit};
use crate::engine::lease::LeaseGrant;
use crate::engine::{Condition, Engine, Outcome};

const LONG: Duration = Duration::from_mins(10);
const SHORT: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(20);

async fn lease(engine: &dyn Engine, holder: &str, ttl: Duration) -> Option<LeaseGrant> {
    engine.lease("worker", holder, ttl, None).await.expect("the engine answers")
}

/// Retries until the lease is granted.
async fn win(engine: &dyn Engine, holder: &str) -> LeaseGrant {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(grant) = lease(engine, holder, LONG).await {
            return grant;
        }
        assert!(Instant::now() < deadline, "the lease was never granted to {holder}");
        tokio::time::sleep(POLL).await;
    }
}

/// A lease has one holder at a time, who may renew it; other names are other leases.
pub async fn lease_has_one_holder(harness: &mut dyn Harness) {
    let (one, two) = (harness.engine().await, harness.engine().await);
    let grant = lease(&*one, "one", LONG).await.expect("the lease is free");
    assert_eq!(lease(&*two, "two", LONG).await, None);
    assert_eq!(lease(&*one, "one", LONG).await, Some(grant), "a renewal changes no epoch");
    assert_eq!(lease(&*two, "two", LONG).await, None);
    let other = two.lease("other", "two", LONG, None).await.expect("the engine answers");
    assert!(other.is_some(), "another lease is free");
}

/// A lease that is not renewed is passed on with a greater epoch.
pub async fn unrenewed_lease_is_passed_on(harness: &mut dyn Harness) {
    let (one, two) = (harness.engine().await, harness.engine().await);
    let first = lease(&*one, "one", SHORT).await.expect("the lease is free");
    let second = win(&*two, "two").await;
    assert!(second.epoch > first.epoch, "the epoch grows");
    assert_eq!(lease(&*one, "one", LONG).await, None, "the earlier holder has lost it");
    assert_eq!(lease(&*two, "two", SHORT).await, Some(second));
    let third = win(&*one, "one").await;
    assert!(third.epoch > second.epoch, "the epoch grows when an earlier holder returns");
}

/// A commit with the fence of a lost lease does not take effect.
pub async fn lease_fences_an_earlier_holder(harness: &mut dyn Harness) {
    let (one, two) = (harness.engine().await, harness.engine().await);
    let first = lease(&*one, "one", SHORT).await.expect("the lease is free");
    let fenced = |grant: LeaseGrant| vec![grant.fence("worker")];
    committed(try_commit(&*one, fenced(first), vec![put("a", "1")]).await);
    lease(&*one, "one", SHORT).await.expect("the lease is renewed");
    committed(try_commit(&*one, fenced(first), vec![put("a", "2")]).await);

    let second = win(&*two, "two").await;
    let late = try_commit(&*one, fenced(first), vec![put("a", "3")]).await;
    assert_eq!(late, Outcome::Conflict { condition: 0 });
    committed(try_commit(&*two, fenced(second), vec![put("a", "4")]).await);
}

/// A lease is not taken while its condition does not hold, and stays free for others.
pub async fn lease_requires_its_condition(harness: &mut dyn Harness) {
    let (one, two) = (harness.engine().await, harness.engine().await);
    let take = async |engine: &dyn Engine, holder, version| {
        let condition = Condition::Version(key("format"), version);
        engine.lease("worker", holder, LONG, Some(&condition)).await.expect("the engine answers")
    };
    let old = committed(try_commit(&*one, vec![], vec![put("format", "1")]).await);
    let new = committed(try_commit(&*two, vec![], vec![put("format", "2")]).await);
    assert_eq!(take(&*one, "one", old).await, None, "the format was raised by another");
    let grant = take(&*two, "two", new).await.expect("the lease is free");
    // What its holder encoded for the format before is late.
    let newest = committed(try_commit(&*one, vec![], vec![put("format", "3")]).await);
    let fenced = |version| vec![Condition::Version(key("format"), version), grant.fence("worker")];
    let late = try_commit(&*two, fenced(new), vec![put("a", "1")]).await;
    assert_eq!(late, Outcome::Conflict { condition: 0 });
    committed(try_commit(&*two, fenced(newest), vec![put("a", "2")]).await);
    assert_eq!(take(&*one, "one", newest).await, None, "another holds it");
}

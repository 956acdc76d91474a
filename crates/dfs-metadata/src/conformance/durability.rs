//! Durability across a reopened store. These checks pass at once for engines without it.

use std::time::Duration;

use super::{Harness, delete, get, key, keys, put, snapshot, write};

/// Acknowledged writes are there after reopening, with their versions.
pub async fn acknowledged_writes_survive(harness: &mut dyn Harness) {
    let mut expected = Vec::new();
    for round in 0..5 {
        let engine = harness.engine().await;
        for (name, revision) in &expected {
            let found = get(&*engine, name).await.expect("an acknowledged write is there");
            assert_eq!(found.version, *revision);
        }
        let name = key(&format!("a/{round}"));
        let gone = key(&format!("b/{round}"));
        let revision = write(&*engine, vec![put(&name, "value"), put(&gone, "value")]).await;
        write(&*engine, vec![delete(&gone)]).await;
        expected.push((name, revision));
        drop(engine);
        if !harness.reopen().await {
            return;
        }
    }
    let engine = harness.engine().await;
    assert_eq!(keys(&*snapshot(&*engine).await, "b/", "", 10).await.len(), 0);
}

/// Revisions and lease epochs continue after reopening.
pub async fn revisions_grow_across_reopening(harness: &mut dyn Harness) {
    const TTL: Duration = Duration::from_millis(1);
    let engine = harness.engine().await;
    let before = write(&*engine, vec![put("a", "1")]).await;
    let lease = engine
        .lease("worker", "one", TTL, None)
        .await
        .expect("answers")
        .expect("the lease is free");
    drop(engine);
    if !harness.reopen().await {
        return;
    }
    let engine = harness.engine().await;
    let snapshot = snapshot(&*engine).await;
    assert!(snapshot.revision() >= before, "the revision went back");
    let revision = snapshot.revision();
    drop(snapshot);
    assert!(write(&*engine, vec![put("a", "2")]).await > revision);
    let mut watch = engine.watch(key("a"), revision).await.expect("watches from here on");
    assert_eq!(super::next(&mut *watch).await.value, Some(key("2")));
    let again = engine.lease("worker", "one", TTL, None).await.expect("answers");
    assert!(again.is_none_or(|again| again.epoch >= lease.epoch), "an epoch went back");
}

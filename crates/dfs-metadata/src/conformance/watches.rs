//! Watches.

use bytes::Bytes;
use dfs_types::Revision;

use super::{DEADLINE, Harness, delete, key, next, put, snapshot, write};
use crate::engine::{Change, EngineError};

fn change(name: &str, value: Option<&str>, revision: Revision) -> Change {
    Change { key: key(name), value: value.map(key), revision }
}

/// A watch reports each change under its prefix once, in order, and none from elsewhere.
pub async fn watch_reports_in_order(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    write(engine, vec![put("n/before", "")]).await;
    let from = snapshot(engine).await.revision();
    let mut watch = engine.watch(key("n/"), from).await.expect("watches");

    let first = write(engine, vec![put("n/a", "1"), put("n0", ""), put("m/a", "")]).await;
    write(engine, vec![put("x", "1")]).await;
    let second = write(engine, vec![put("n/a", "2"), put("n/a", "3")]).await;
    let third = write(engine, vec![delete("n/a"), delete("n/never")]).await;
    let fourth = write(engine, vec![put("n/b", "1"), put("n/c", "1")]).await;

    assert_eq!(next(&mut *watch).await, change("n/a", Some("1"), first));
    assert_eq!(next(&mut *watch).await, change("n/a", Some("3"), second));
    assert_eq!(next(&mut *watch).await, change("n/a", None, third));
    let mut both = [next(&mut *watch).await, next(&mut *watch).await];
    both.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(both, ["n/b", "n/c"].map(|name| change(name, Some("1"), fourth)));
}

/// A watch from a snapshot's revision reports all commits since.
pub async fn watch_from_the_past(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let first = write(engine, vec![put("n/a", "1")]).await;
    let from = snapshot(engine).await.revision();
    let second = write(engine, vec![put("n/a", "2")]).await;
    let third = write(engine, vec![put("n/b", "3")]).await;

    let mut since = engine.watch(key("n/"), from).await.expect("watches");
    assert_eq!(next(&mut *since).await, change("n/a", Some("2"), second));
    assert_eq!(next(&mut *since).await, change("n/b", Some("3"), third));

    let mut all = engine.watch(Bytes::new(), first).await.expect("watches");
    assert_eq!(next(&mut *all).await, change("n/a", Some("2"), second));
    let mut last = engine.watch(key("n/"), second).await.expect("watches");
    assert_eq!(next(&mut *last).await, change("n/b", Some("3"), third));
}

/// A watch without changes waits, and reports what another handle commits.
pub async fn watch_waits(harness: &mut dyn Harness) {
    let (engine, other) = (harness.engine().await, harness.engine().await);
    let from = snapshot(&*engine).await.revision();
    let mut watch = engine.watch(key("n/"), from).await.expect("watches");
    let waiting = tokio::spawn(async move { next(&mut *watch).await });
    tokio::task::yield_now().await;
    write(&*other, vec![put("elsewhere", "")]).await;
    let revision = write(&*other, vec![put("n/a", "1")]).await;
    assert_eq!(waiting.await.expect("ends"), change("n/a", Some("1"), revision));
}

/// A reader that falls behind still gets everything, or an error.
pub async fn lagging_watch(harness: &mut dyn Harness) {
    const COMMITS: usize = 200;
    let engine = &*harness.engine().await;
    let from = snapshot(engine).await.revision();
    let mut watch = engine.watch(key("n/"), from).await.expect("watches");
    let writes =
        |round: usize| (0..100).map(|i| put(format!("n/{i}"), round.to_string())).collect();
    for round in 0..COMMITS {
        write(engine, writes(round)).await;
    }
    let mut seen = 0;
    while seen < COMMITS * 100 {
        let change = tokio::time::timeout(DEADLINE, watch.next()).await.expect("in time");
        match change {
            Ok(change) => {
                assert_eq!(
                    change.value,
                    Some(key(&(seen / 100).to_string())),
                    "a change is missing"
                );
                seen += 1;
            }
            Err(EngineError::Compacted(_)) => break,
            Err(error) => unreachable!("the watch failed: {error}"),
        }
    }
    // A new watch from here works.
    let from = snapshot(engine).await.revision();
    let mut watch = engine.watch(key("n/"), from).await.expect("watches");
    let revision = write(engine, vec![put("n/a", "1")]).await;
    assert_eq!(next(&mut *watch).await, change("n/a", Some("1"), revision));
}

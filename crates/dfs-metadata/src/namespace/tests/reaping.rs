//! The reaper frees space, and only of what nothing refers to.

use dfs_types::{ErrorCode, LeaseEpoch, Scope};

use super::*;

#[tokio::test]
async fn deleted_tree_is_reaped_to_the_last_key() {
    let fixture = Fixture::new().await;
    let before = [fixture.count("d/").await, fixture.count("i/").await, fixture.count("t/").await];
    fixture.mkdir("/a").await.unwrap();
    for directory in 0..3 {
        fixture.mkdir(&format!("/a/{directory}")).await.unwrap();
        for file in 0..40 {
            fixture.put(&format!("/a/{directory}/{file}"), 1 + file % 3 * CHUNK).await.unwrap();
        }
        fixture.symlink(&format!("/a/{directory}/l"), "x").await.unwrap();
    }
    fixture.put("/a/big", 60 * CHUNK).await.unwrap();
    fixture.delete("/a", true, false).await.unwrap();
    assert_eq!(fixture.reap(false).await, 0);
    fixture.clock.advance(HOUR * 2);
    let tombstones = fixture.reap(false).await;
    let chunks =
        fixture.namespace.scan_chunks(Scope::internal(), None, 1_000).await.unwrap().chunks;
    assert!(chunks.iter().all(|(_, chunk)| chunk.is_tombstone()));
    assert_eq!((tombstones, fixture.count("w/d/").await), (chunks.len(), chunks.len()));
    let after = [fixture.count("d/").await, fixture.count("i/").await, fixture.count("t/").await];
    assert_eq!((before, fixture.count("x/").await, fixture.count("o/").await), (after, 0, 0));
}

#[tokio::test]
async fn pressure_reaps_what_could_still_be_restored() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    fixture.delete("/f", false, false).await.unwrap();
    assert_eq!(fixture.reap(false).await, 0);
    assert_eq!(fixture.reap(true).await, 1);
    let back = Undelete { target: path("/f"), to: None };
    assert_eq!(
        code(fixture.namespace.undelete(Scope::internal(), &back, None).await),
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn put_into_deleted_directory_is_refused_or_reaped_with_it() {
    let fixture = Fixture::new().await;
    fixture.mkdir("/a").await.unwrap();
    fixture.mkdir("/a/b").await.unwrap();
    let plan = fixture.plan("/a/b/f", CHUNK).await.unwrap();
    fixture.delete("/a", true, true).await.unwrap();
    fixture.namespace.confirm(Scope::internal(), &fixture.confirm_of(&plan), None).await.unwrap();
    let late = fixture.plan("/a/b/g", CHUNK).await;
    assert_eq!(code(late), ErrorCode::NotFound);
    assert_eq!(fixture.reap(false).await, 1);
    assert_eq!((fixture.count("d/").await, fixture.count("i/").await), (0, 1));
}

#[tokio::test]
async fn nothing_is_reaped_without_the_lease() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    fixture.delete("/f", false, true).await.unwrap();
    let ttl = Duration::ZERO;
    let first = fixture.engine.lease("workers", "one", ttl, None).await.unwrap().unwrap();
    let second = fixture.engine.lease("workers", "two", ttl, None).await.unwrap().unwrap();
    assert!(second.epoch > first.epoch && first.epoch > LeaseEpoch(0));
    let limits = ReapLimits { items: 10, pressure: false };
    let late =
        fixture.namespace.reap(Scope::internal(), &limits, Some(&first.fence("workers"))).await;
    assert!(matches!(late, Err(Error::LeaseLost)), "{late:?}");
    let reaped = fixture
        .namespace
        .reap(Scope::internal(), &limits, Some(&second.fence("workers")))
        .await
        .unwrap();
    assert_eq!(reaped.tombstones, 1);
}

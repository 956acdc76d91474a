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
async fn deleted_files_share_engine_commits_while_they_are_reaped() {
    let fixture = Fixture::new().await;
    for file in 0..60 {
        fixture.put(&format!("/{file}"), CHUNK).await.unwrap();
        fixture.delete(&format!("/{file}"), false, true).await.unwrap();
    }
    let committer = &fixture.namespace.inner.components.committer;
    let before = committer.engine_commits();
    assert_eq!(fixture.reap(false).await, 60);
    let commits = committer.engine_commits() - before;
    assert!(commits <= 20, "{commits} commits");
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

/// Opens the namespace of a fixture again, with a clock that is confirmed for a minute.
async fn confirming(fixture: &Fixture) -> Namespace {
    let (committer, serving) = Committer::new(fixture.engine.clone(), std::future::pending());
    tokio::spawn(serving);
    let components = Components {
        engine: fixture.engine.clone(),
        committer,
        clock: fixture.clock.clone(),
        random: fixture.random(),
    };
    let options = Options { confirm_clock: Duration::from_mins(1), ..Options::default() };
    Namespace::open(components, options, None).await.unwrap()
}

/// D8.
#[tokio::test(start_paused = true)]
async fn d8_upload_is_confirmed_while_a_clock_is_ahead() {
    let fixture = Fixture::new().await;
    let small = fixture.confirm_of(&fixture.plan("/small", CHUNK).await.unwrap());
    let large = fixture.plan("/large", CHUNK).await.unwrap();
    let staged = fixture.confirm_of(&large);
    let namespace = confirming(&fixture).await;
    for _ in 0..70 {
        namespace.confirmed_now();
        fixture.clock.advance(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    fixture.clock.advance(HOUR * 48);
    let scope = Scope::internal();
    namespace.confirm(scope, &small, None).await.unwrap();
    namespace.stage(scope, &staged.tokens, &staged.chunks).await.unwrap();
    fixture.clock.advance(HOUR * 48);
    namespace.confirm(scope, &staged, None).await.unwrap();
    // A time that lasts is followed.
    let late = fixture.confirm_of(&fixture.plan("/late", CHUNK).await.unwrap());
    fixture.clock.advance(HOUR * 48);
    for _ in 0..70 {
        namespace.confirmed_now();
        fixture.clock.advance(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let late = namespace.confirm(scope, &late, None).await;
    assert!(matches!(late, Err(Error::UploadExpired { .. })), "{late:?}");
}

/// D8.
#[tokio::test(start_paused = true)]
async fn d8_clock_that_jumps_ahead_for_seconds_expires_nothing() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    fixture.delete("/f", false, false).await.unwrap();
    let plan = fixture.plan("/g", CHUNK).await.unwrap();
    let stage = fixture.confirm_of(&plan);
    fixture.namespace.stage(Scope::internal(), &stage.tokens, &stage.chunks).await.unwrap();
    let namespace = confirming(&fixture).await;
    let limits = ReapLimits { items: 10, pressure: false };
    let reap = async || {
        let scope = Scope::internal();
        let unlinked = namespace.reap(scope, &limits, None).await.unwrap();
        let uploads = namespace.reap_uploads(scope, &limits, None).await.unwrap();
        unlinked.tombstones + uploads.tombstones
    };
    for second in 0..300 {
        // For twenty seconds of each minute, the clock is two days ahead.
        let is_ahead = second % 60 >= 40;
        if is_ahead {
            fixture.clock.advance(HOUR * 48);
        }
        assert_eq!(reap().await, 0, "at second {second}");
        if is_ahead {
            fixture.clock.set(fixture.clock.now().minus(HOUR * 48));
        }
        fixture.clock.advance(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let back = Undelete { target: path("/f"), to: None };
    fixture.namespace.undelete(Scope::internal(), &back, None).await.unwrap();
    fixture.delete("/f", false, false).await.unwrap();
    // A time that lasts is followed.
    fixture.clock.advance(HOUR * 48);
    let mut reaped = 0;
    for _ in 0..100 {
        reaped += reap().await;
        fixture.clock.advance(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(reaped, 2);
}

#[tokio::test]
async fn nothing_is_reaped_in_a_new_incarnation_before_it_is_acknowledged() {
    let fixture = Fixture::new().await;
    fixture.put("/f", CHUNK).await.unwrap();
    fixture.delete("/f", false, true).await.unwrap();
    let (old, scope) = (fixture.namespace.identity(), Scope::internal());
    let cluster =
        crate::records::setting::Cluster { id: old.cluster, incarnation: old.incarnation.next() };
    let value = crate::codec::Record::encode(&cluster, Level::FIRST);
    let write = crate::engine::Write::Put(crate::keys::CLUSTER, value.into());
    let commit = crate::engine::Commit { conditions: Vec::new(), writes: vec![write] };
    crate::engine::Engine::commit_batch(&*fixture.engine, vec![commit]).await.unwrap();
    let namespace = open(&fixture.engine, &fixture.clock, &fixture.random(), None).await.unwrap();
    let limits = ReapLimits { items: 10, pressure: true };
    let reaped = namespace.reap(scope, &limits, None).await.unwrap();
    assert_eq!((reaped, namespace.may_delete().await.unwrap()), (Reaped::default(), false));
    assert!(matches!(
        namespace.authorise_deletion(scope, None).await,
        Err(Error::DeletionHeld(incarnation)) if incarnation == old.incarnation.next()
    ));
    // Acknowledging another incarnation permits nothing.
    let stale = namespace.acknowledge_gc(scope, old.incarnation, 0).await;
    assert_eq!(code(stale), ErrorCode::InvalidArgument);
    assert!(!namespace.may_delete().await.unwrap());
    namespace.acknowledge_gc(scope, old.incarnation.next(), 0).await.unwrap();
    namespace.acknowledge_gc(scope, old.incarnation.next(), 0).await.unwrap();
    namespace.authorise_deletion(scope, None).await.unwrap();
    assert_eq!(namespace.reap(scope, &limits, None).await.unwrap().tombstones, 1);
}

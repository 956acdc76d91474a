//! Snapshots, versions and ranges.

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;

use super::{DEADLINE, Harness, delete, get, key, keys, put, snapshot, value, write};

/// A new store is empty.
pub async fn empty_store(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    let snapshot = snapshot(&*engine).await;
    assert_eq!(snapshot.get(b"d/1").await.expect("reads"), None);
    assert_eq!(keys(&*snapshot, "", "", 10).await, [] as [Bytes; 0]);
    assert_eq!(snapshot.get_many(&[]).await.expect("reads"), vec![]);
}

/// A key has the revision of the commit that wrote it last, and each commit a greater one.
pub async fn versions_follow_commits(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    let first = write(&*engine, vec![put("a", "1"), put("b", "1")]).await;
    let second = write(&*engine, vec![put("a", "2")]).await;
    assert!(second > first, "revisions grow");

    let snapshot = snapshot(&*engine).await;
    assert!(snapshot.revision() >= second, "a snapshot sees acknowledged writes");
    let [a, b] = ["a", "b"].map(key);
    let (a, b) = (snapshot.get(&a).await.expect("reads"), snapshot.get(&b).await.expect("reads"));
    let (a, b) = (a.expect("a exists"), b.expect("b exists"));
    assert_eq!((a.version, &*a.value), (second, &b"2"[..]));
    assert_eq!((b.version, &*b.value), (first, &b"1"[..]), "a write of a leaves b alone");

    write(&*engine, vec![delete("b")]).await;
    assert_eq!(value(&*engine, "b").await, None);
    let again = write(&*engine, vec![put("b", "")]).await;
    let b = get(&*engine, "b").await.expect("b exists again");
    assert_eq!((b.version, b.value.len()), (again, 0), "an empty value is a value");
}

/// A snapshot sees neither later writes nor later removals, whatever happens in the meantime.
pub async fn snapshots_are_isolated(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    write(&*engine, vec![put("s/kept", "old"), put("s/removed", "old")]).await;
    let before = snapshot(&*engine).await;
    for round in 0..5_u8 {
        write(&*engine, vec![put("s/kept", [round]), put("s/new", [round])]).await;
        write(&*engine, vec![delete("s/removed")]).await;
        write(&*engine, vec![put("s/removed", "new")]).await;
        drop(snapshot(&*engine).await);
    }
    write(&*engine, vec![delete("s/removed"), delete("s/kept")]).await;

    for _ in 0..2 {
        let old = before.get(b"s/kept").await.expect("reads").expect("exists");
        assert_eq!(old.value, "old");
        assert_eq!(before.get(b"s/new").await.expect("reads"), None);
        assert_eq!(keys(&*before, "s/", "", 10).await, ["s/kept", "s/removed"].map(key));
        // Again, after another reader has come and gone.
        drop(snapshot(&*engine).await);
    }
    assert_eq!(keys(&*snapshot(&*engine).await, "s/", "", 10).await, [key("s/new")]);
}

/// A write acknowledged by one handle is seen by all others.
pub async fn acknowledged_writes_are_seen_everywhere(harness: &mut dyn Harness) {
    let handles = [harness.engine().await, harness.engine().await, harness.engine().await];
    for round in 0..30_usize {
        let revision = write(&*handles[round % 3], vec![put("k", round.to_string())]).await;
        for handle in &handles {
            let seen = get(&**handle, "k").await.expect("exists");
            assert_eq!((&*seen.value, seen.version), (round.to_string().as_bytes(), revision));
        }
    }
}

/// Several keys come in the requested order, also duplicates and missing ones.
pub async fn get_many_keeps_order(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    write(&*engine, vec![put("a", "1"), put("c", "3")]).await;
    let found = snapshot(&*engine).await.get_many(&["c", "b", "a", "c"].map(key)).await;
    let values: Vec<Option<Bytes>> =
        found.expect("reads").into_iter().map(|found| found.map(|found| found.value)).collect();
    assert_eq!(values, [Some(key("3")), None, Some(key("1")), Some(key("3"))]);
}

/// Pages add up to the whole prefix in order, even while keys come and go.
pub async fn ranges_are_paged(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    let all: Vec<Bytes> = (0..50).map(|i| key(&format!("d/{i:03}"))).collect();
    write(&*engine, all.iter().map(|key| put(key, key)).collect()).await;

    let snapshot_before = snapshot(&*engine).await;
    for limit in [1, 7, 50, 51] {
        let mut seen: Vec<Bytes> = Vec::new();
        loop {
            let after = seen.last().cloned().unwrap_or_default();
            let page = keys(&*snapshot_before, "d/", &after, limit).await;
            assert!(page.len() <= limit, "a page of {} for a limit of {limit}", page.len());
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, all, "pages of {limit}");
    }
    assert_eq!(keys(&*snapshot_before, "d/", "", 0).await, [] as [Bytes; 0]);

    // The cursor may name a key removed meanwhile.
    write(&*engine, vec![delete("d/010"), delete("d/011"), put("d/011a", "")]).await;
    let later = keys(&*snapshot(&*engine).await, "d/", "d/010", 2).await;
    assert_eq!(later, ["d/011a", "d/012"].map(key));
}

/// Prefix, cursor, and the keys expected.
type Case<'a> = (&'a [u8], &'a [u8], &'a [&'a [u8]]);

/// A range ends with its prefix, also around a byte 0xff, and does not require UTF-8.
pub async fn ranges_respect_boundaries(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    let stored: [&[u8]; 9] = [
        b"p",
        b"p/",
        b"p/\x00",
        b"p/\xff",
        b"p/\xff\xff",
        b"p0",
        b"\xff",
        b"\xff\x00",
        b"\xff\xff",
    ];
    write(&*engine, stored.iter().map(|key| put(key, "")).collect()).await;
    let snapshot = snapshot(&*engine).await;

    let cases: [Case; 10] = [
        (b"p/", b"", &[b"p/", b"p/\x00", b"p/\xff", b"p/\xff\xff"]),
        (b"p/", b"p/", &[b"p/\x00", b"p/\xff", b"p/\xff\xff"]),
        (b"p/", b"p/\xff", &[b"p/\xff\xff"]),
        (b"p/", b"p/\xff\xff", &[]),
        (b"p/\xff", b"", &[b"p/\xff", b"p/\xff\xff"]),
        (b"p/", b"a", &[b"p/", b"p/\x00", b"p/\xff", b"p/\xff\xff"]),
        (b"p/", b"q", &[]),
        (b"\xff", b"", &[b"\xff", b"\xff\x00", b"\xff\xff"]),
        (b"\xff\xff", b"", &[b"\xff\xff"]),
        (b"", b"", &stored),
    ];
    for (prefix, after, expected) in cases {
        let found = keys(&*snapshot, prefix, after, 100).await;
        assert_eq!(found, expected, "prefix {prefix:?} after {after:?}");
    }
}

/// Prefix, bound, and the key expected.
type Before<'a> = (&'a [u8], &'a [u8], Option<&'a [u8]>);

/// The greatest key of a prefix below a bound, wherever the bound is.
pub async fn last_before_respects_boundaries(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    let empty = snapshot(&*engine).await;
    assert_eq!(empty.last_before(b"", b"z").await.expect("reads"), None, "the store is empty");

    let stored: [&[u8]; 10] = [
        b"p",
        b"p/",
        b"p/\x00",
        b"p/1",
        b"p/1/x",
        b"p/\xff",
        b"p/\xff\xff",
        b"p0",
        b"\xff",
        b"\xff\xff",
    ];
    let version = write(&*engine, stored.iter().map(|key| put(key, key)).collect()).await;
    let snapshot = snapshot(&*engine).await;

    let cases: [Before; 21] = [
        // The bound is within the prefix, and exists.
        (b"p/", b"p/\x00", Some(b"p/")),
        (b"p/", b"p/1", Some(b"p/\x00")),
        (b"p/", b"p/1/x", Some(b"p/1")),
        (b"p/", b"p/\xff\xff", Some(b"p/\xff")),
        // It does not exist.
        (b"p/", b"p/0", Some(b"p/\x00")),
        (b"p/", b"p/1/", Some(b"p/1")),
        (b"p/", b"p/2", Some(b"p/1/x")),
        (b"p/", b"p/\xff\xff\x00", Some(b"p/\xff\xff")),
        (b"p/1", b"p/1/a", Some(b"p/1")),
        // It is the prefix itself, or before all of it.
        (b"p/", b"p/", None),
        (b"p/", b"p", None),
        (b"p/", b"", None),
        (b"p", b"p\x00", Some(b"p")),
        // It is after all of the prefix, whose neighbours do not count.
        (b"p/", b"p0", Some(b"p/\xff\xff")),
        (b"p/", b"\xff", Some(b"p/\xff\xff")),
        (b"p/\xff", b"q", Some(b"p/\xff\xff")),
        (b"\xff", b"\xff\xff\xff", Some(b"\xff\xff")),
        // No key starts with the prefix, although there are keys on both sides.
        (b"p/2", b"p/3", None),
        (b"p/2", b"z", None),
        // Every key starts with the empty prefix.
        (b"", b"q", Some(b"p0")),
        (b"", b"", None),
    ];
    for (prefix, bound, expected) in cases {
        let found = snapshot.last_before(prefix, bound).await.expect("reads");
        let context = format!("prefix {prefix:?} before {bound:?}");
        assert_eq!(found.as_ref().map(|(key, _)| &**key), expected, "{context}");
        let Some((key, found)) = found else { continue };
        assert_eq!((found.value, found.version), (key, version), "{context}");
    }
}

/// Many keys of a prefix, most of them close together.
pub async fn last_before_searches_many_keys(harness: &mut dyn Harness) {
    const STEP: usize = 50;
    let engine = harness.engine().await;
    let key = |number: u64| [&b"p/"[..], &number.to_be_bytes()].concat();
    let dense = (1..=400).map(|number| number * 3);
    let sparse = (20..60_u64).map(|bit| 1 << bit);
    let stored: Vec<u64> = dense.chain(sparse).collect();
    for some in stored.chunks(STEP) {
        write(&*engine, some.iter().map(|number| put(key(*number), "value")).collect()).await;
    }
    write(&*engine, vec![put("p0", "value"), put("p", "value")]).await;
    let snapshot = snapshot(&*engine).await;
    for bound in [0, 3, 4, 6, 390, 599, 600, 601, 1_200, 1_201, 1 << 20, (1 << 41) + 1, u64::MAX] {
        let found = snapshot.last_before(b"p/", &key(bound)).await.expect("reads");
        let expected = stored.iter().rev().find(|number| **number < bound);
        let found = found.map(|(key, _)| key.to_vec());
        assert_eq!(found, expected.map(|number| key(*number)), "before {bound}");
    }
}

/// The last key before a bound is that of the snapshot, even if it was overwritten or removed
/// since, or a greater one was added.
pub async fn last_before_is_isolated(harness: &mut dyn Harness) {
    let engine = harness.engine().await;
    let first = write(&*engine, vec![put("p/1", "old"), put("p/5", "old")]).await;
    let before = snapshot(&*engine).await;
    write(&*engine, vec![put("p/7", "new"), put("p/5", "new")]).await;
    write(&*engine, vec![delete("p/5"), delete("p/7")]).await;
    let between = snapshot(&*engine).await;
    write(&*engine, vec![delete("p/1")]).await;

    let old = before.last_before(b"p/", b"p/9").await.expect("reads");
    let (found, old) = old.expect("p/5 was there");
    assert_eq!((found, &*old.value, old.version), (key("p/5"), &b"old"[..], first));
    let found = between.last_before(b"p/", b"p/9").await.expect("reads");
    assert_eq!(found.expect("p/1 was there").0, key("p/1"));
    let now = snapshot(&*engine).await.last_before(b"p/", b"p/9").await.expect("reads");
    assert_eq!(now, None, "the prefix is empty now");
}

/// Calls that nobody polls hold up no other call: a worker may wait for a read while its jobs, which
/// it does not poll meanwhile, are in the middle of theirs.
pub async fn stalled_calls_hold_up_no_other(harness: &mut dyn Harness) {
    const STALLED: usize = 200;
    let engine = harness.engine().await;
    for batch in 0..10 {
        let keys = (0..100).map(|n| put(format!("k/{batch}/{n:02}"), "v"));
        write(&*engine, keys.collect()).await;
    }
    // Long enough that some are in the middle of it, and others wait for their turn.
    let read = async || snapshot(&*engine).await.range(b"k/", b"", 1_000).await;
    let mut stalled: Vec<_> = (0..STALLED).map(|_| Box::pin(read().fuse())).collect();
    for _ in 0..3 {
        for call in &mut stalled {
            // Not polled again once it has ended.
            if !call.is_terminated() {
                drop(futures_util::poll!(call));
            }
        }
        // Some get further: a snapshot is followed by the read.
        tokio::task::yield_now().await;
    }
    let other = tokio::time::timeout(DEADLINE, value(&*engine, "k/0/00")).await;
    assert_eq!(other.expect("a read waits for stalled calls"), Some(Bytes::from_static(b"v")));
    drop(stalled);
}

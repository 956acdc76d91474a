//! Conditions, batches and limits.

use bytes::Bytes;
use dfs_types::Revision;

use super::{Harness, committed, delete, get, key, keys, put, snapshot, try_commit, value, write};
use crate::engine::{
    COMMIT_BYTES_MAX, COMMIT_KEYS_MAX, Commit, Condition, Engine, EngineError, KEY_LEN_MAX,
    Outcome, VALUE_LEN_MAX,
};

const CONFLICT: Outcome = Outcome::Conflict { condition: 0 };

/// `Absent` holds for a key that never existed or was removed.
pub async fn absent_condition(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let create = || try_commit(engine, vec![Condition::Absent(key("a"))], vec![put("a", "1")]);
    committed(create().await);
    assert_eq!(create().await, CONFLICT);
    write(engine, vec![delete("a")]).await;
    committed(create().await);
}

/// `Version` holds only for the last write; a key that was created again has another version.
pub async fn version_condition(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let at = |version| vec![Condition::Version(key("a"), version)];
    assert_eq!(try_commit(engine, at(Revision(0)), vec![put("a", "x")]).await, CONFLICT);

    let first = write(engine, vec![put("a", "1")]).await;
    assert_eq!(try_commit(engine, at(Revision(0)), vec![put("a", "x")]).await, CONFLICT);
    assert_eq!(try_commit(engine, at(first.next()), vec![put("a", "x")]).await, CONFLICT);
    let second = committed(try_commit(engine, at(first), vec![put("a", "2")]).await);
    assert_eq!(try_commit(engine, at(first), vec![put("a", "x")]).await, CONFLICT);

    // The same value, written again, is another version.
    let third = write(engine, vec![put("a", "2")]).await;
    assert_eq!(try_commit(engine, at(second), vec![delete("a")]).await, CONFLICT);
    committed(try_commit(engine, at(third), vec![delete("a")]).await);
    assert_eq!(try_commit(engine, at(third), vec![put("a", "x")]).await, CONFLICT);
    write(engine, vec![put("a", "1")]).await;
    assert_eq!(try_commit(engine, at(first), vec![put("a", "x")]).await, CONFLICT);
    assert_eq!(value(engine, "a").await, Some(key("1")), "a conflict changes nothing");
}

/// `PrefixEmpty` sees keys that start with the prefix, and not their neighbours.
pub async fn prefix_empty_condition(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let holds = async |prefix: &[u8]| {
        let condition = Condition::PrefixEmpty(Bytes::copy_from_slice(prefix));
        try_commit(engine, vec![condition], vec![]).await != CONFLICT
    };
    assert!(holds(b"").await, "the store is empty");

    let neighbours: [&[u8]; 6] = [b"d", b"d.", b"d0", b"d\xfe\xff", b"\xfe\xff", b"e"];
    write(engine, neighbours.iter().map(|key| put(key, "")).collect()).await;
    assert!(holds(b"d/").await);
    assert!(holds(b"d\xff").await);
    assert!(holds(b"\xff").await);
    assert!(holds(b"\xff\xff").await);
    assert!(!holds(b"").await);

    let inside: [(&[u8], &[u8]); 6] = [
        (b"d/", b"d/"),
        (b"d/", b"d/\x00"),
        (b"d/", b"d/\xff\xff"),
        (b"d\xff", b"d\xff\xff"),
        (b"\xff", b"\xff"),
        (b"\xff\xff", b"\xff\xff\x01"),
    ];
    for (prefix, key) in inside {
        write(engine, vec![put(key, "")]).await;
        assert!(!holds(prefix).await, "{key:?} starts with {prefix:?}");
        write(engine, vec![delete(key)]).await;
        assert!(holds(prefix).await, "{key:?} is gone from {prefix:?}");
    }
}

/// Conditions are judged before any write of their commit, and the first that fails is reported.
pub async fn conditions_see_the_state_before(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let absent = |name| Condition::Absent(key(name));
    let own = vec![absent("a"), Condition::PrefixEmpty(key("a")), absent("b")];
    committed(try_commit(engine, own, vec![put("a", "1"), put("ab", "1"), put("b", "1")]).await);

    write(engine, vec![delete("b")]).await;
    let version = get(engine, "a").await.expect("exists").version;
    let conditions = vec![
        Condition::Version(key("a"), version),
        absent("b"),
        Condition::PrefixEmpty(key("a")),
        absent("a"),
    ];
    let writes = vec![delete("a"), delete("ab"), put("b", "2"), put("c", "2")];
    let outcome = try_commit(engine, conditions, writes).await;
    assert_eq!(outcome, Outcome::Conflict { condition: 2 });
    assert_eq!(
        keys(&*snapshot(engine).await, "", "", 10).await,
        ["a", "ab"].map(key),
        "a commit with a conflict has no effect"
    );
}

/// The last of several writes of one key wins, within a commit and within a batch.
pub async fn several_writes_of_one_key(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    write(engine, vec![put("a", "1"), delete("a"), put("a", "2")]).await;
    assert_eq!(value(engine, "a").await, Some(key("2")));
    write(engine, vec![put("a", "3"), delete("a")]).await;
    assert_eq!(value(engine, "a").await, None);

    let blind = |writes| Commit { conditions: vec![], writes };
    let batch = vec![blind(vec![put("a", "4")]), blind(vec![put("a", "5"), put("b", "5")])];
    let outcomes = engine.commit_batch(batch).await.expect("commits");
    let [first, second] = [committed(outcomes[0]), committed(outcomes[1])];
    assert!(first <= second, "in the given order");
    let a = get(engine, "a").await.expect("exists");
    assert_eq!((&*a.value, a.version), (&b"5"[..], second));
}

/// Each commit of a batch sees the ones before it, and conflicts do not spread.
pub async fn batch_is_ordered_and_independent(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let create = |name: &str, value: &str| Commit {
        conditions: vec![Condition::Absent(key(name))],
        writes: vec![put(name, value)],
    };
    let remove = |name: &str| Commit { conditions: vec![], writes: vec![delete(name)] };
    let when_empty = |prefix: &str, name: &str| Commit {
        conditions: vec![Condition::PrefixEmpty(key(prefix))],
        writes: vec![put(name, "")],
    };
    let batch = vec![
        create("d/a", "1"),
        create("d/a", "2"),
        when_empty("d/", "no"),
        create("d/b", "3"),
        remove("d/a"),
        create("d/a", "4"),
        remove("d/a"),
        remove("d/b"),
        when_empty("d/", "yes"),
    ];
    let outcomes = engine.commit_batch(batch).await.expect("commits");
    let conflicts: Vec<bool> = outcomes.iter().map(|outcome| *outcome == CONFLICT).collect();
    assert_eq!(conflicts, [false, true, true, false, false, false, false, false, false]);
    assert_eq!(keys(&*snapshot(engine).await, "", "", 10).await, [key("yes")]);
    assert_eq!(engine.commit_batch(vec![]).await.expect("commits"), vec![]);
}

/// A commit without writes checks its conditions and changes nothing.
pub async fn commit_without_writes(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let revision = write(engine, vec![put("a", "1")]).await;
    let condition = vec![Condition::Version(key("a"), revision)];
    assert!(committed(try_commit(engine, condition, vec![]).await) >= revision);
    let condition = vec![Condition::Absent(key("a"))];
    assert_eq!(try_commit(engine, condition, vec![]).await, CONFLICT);
    assert_eq!(get(engine, "a").await.expect("exists").version, revision);
}

/// A commit at a limit works; one above it is refused and changes nothing.
pub async fn limits(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let name = |i: usize| key(&format!("n/{i:03}"));
    let many = |n: usize| Commit {
        conditions: (0..n).map(|i| Condition::Absent(name(i))).collect(),
        writes: (0..n).map(|i| put(name(i), vec![0; 100])).collect(),
    };
    let one = |key: &[u8], len: usize| Commit {
        conditions: vec![],
        writes: vec![put(key, vec![b'v'; len])],
    };
    // Values of the largest size, and one that fills the rest of `bytes`.
    let heavy = |bytes: usize| {
        let mut commit = Commit::default();
        while commit.bytes() < bytes {
            let name = format!("h/{:02}", commit.writes.len());
            let len = (bytes - commit.bytes() - name.len()).min(VALUE_LEN_MAX);
            commit.writes.push(put(name, vec![b'v'; len]));
        }
        assert_eq!(commit.bytes(), bytes);
        commit
    };
    let too_large = [
        heavy(COMMIT_BYTES_MAX + 1),
        many(COMMIT_KEYS_MAX + 1),
        one(&vec![b'k'; KEY_LEN_MAX + 1], 1),
        one(b"k", VALUE_LEN_MAX + 1),
        one(b"", 1),
    ];
    for commit in too_large {
        let refused = engine.commit_batch(vec![one(b"neighbour", 1), commit]).await;
        assert!(matches!(refused, Err(EngineError::TooLarge(_))), "not refused: {refused:?}");
    }
    assert_eq!(keys(&*snapshot(engine).await, "", "", 10).await, [] as [Bytes; 0]);

    let long = vec![0xff; KEY_LEN_MAX];
    // The longest keys, each in a condition and a write, and as many bytes as allowed.
    let mut widest = heavy(COMMIT_BYTES_MAX - 60 * 2 * KEY_LEN_MAX);
    for i in 0..60 {
        let key = Bytes::from(format!("{i:0KEY_LEN_MAX$}"));
        widest.conditions.push(Condition::Absent(key.clone()));
        widest.writes.push(put(key, ""));
    }
    for commit in
        [many(COMMIT_KEYS_MAX), one(&long, VALUE_LEN_MAX), heavy(COMMIT_BYTES_MAX), widest]
    {
        committed(engine.commit_batch(vec![commit]).await.expect("commits")[0]);
    }
    assert_eq!(keys(&*snapshot(engine).await, "n/", "", 1000).await.len(), COMMIT_KEYS_MAX);
    assert_eq!(value(engine, &long).await.map(|value| value.len()), Some(VALUE_LEN_MAX));
}

/// Concurrent read-modify-write cycles with conditions lose no update.
pub async fn concurrent_increments(harness: &mut dyn Harness) {
    const TASKS: usize = 8;
    const EACH: usize = 10;
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let engine = harness.engine().await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..EACH {
                while !increment(&*engine).await {}
            }
        }));
    }
    for task in tasks {
        task.await.expect("the task ends");
    }
    let sum = value(&*harness.engine().await, "counter").await.expect("exists");
    assert_eq!(sum, (TASKS * EACH).to_string());
}

async fn increment(engine: &dyn Engine) -> bool {
    let (condition, count) = match get(engine, "counter").await {
        None => (Condition::Absent(key("counter")), 0),
        Some(found) => {
            let text = String::from_utf8(found.value.to_vec()).expect("digits");
            (Condition::Version(key("counter"), found.version), text.parse().expect("digits"))
        }
    };
    let write = vec![put("counter", (count + 1_usize).to_string())];
    try_commit(engine, vec![condition], write).await != CONFLICT
}

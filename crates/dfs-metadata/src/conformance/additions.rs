//! Additions to counters.

use super::{
    Harness, add, committed, delete, get, key, next, put, snapshot, try_commit, value, write,
};
use crate::engine::{
    COMMIT_KEYS_MAX, Change, Commit, Condition, Engine, EngineError, Outcome, Write,
    decode_counter, encode_counter,
};

async fn number(engine: &dyn Engine, name: &str) -> Option<i64> {
    value(engine, name).await.map(|value| decode_counter(&value).expect("a counter"))
}

fn blind(writes: Vec<Write>) -> Commit {
    Commit { conditions: vec![], writes }
}

/// A missing counter is 0, each addition creates a version, and a watch reports the sums.
pub async fn added_keys_have_versions_and_changes(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let from = snapshot(engine).await.revision();
    let mut watch = engine.watch(key("c/"), from).await.expect("watches");

    let first = write(engine, vec![add("c/a", 5)]).await;
    let before = snapshot(engine).await;
    let second = write(engine, vec![add("c/a", -7)]).await;
    let third = write(engine, vec![add("c/a", 0), add("c/b", 0)]).await;
    let a = get(engine, "c/a").await.expect("exists");
    assert_eq!((a.value, a.version), (encode_counter(-2), third), "0 also writes the key");
    assert_eq!(number(engine, "c/b").await, Some(0), "0 makes a counter");
    let old = before.get(b"c/a").await.expect("reads").expect("exists");
    assert_eq!((old.value, old.version), (encode_counter(5), first), "of its snapshot");

    let at = |revision| vec![Condition::Version(key("c/a"), revision)];
    let late = try_commit(engine, at(second), vec![add("c/a", 1)]).await;
    assert_eq!(late, Outcome::Conflict { condition: 0 });
    let fourth = committed(try_commit(engine, at(third), vec![add("c/a", 1)]).await);

    let change = |name, number, revision| Change {
        key: key(name),
        value: Some(encode_counter(number)),
        revision,
    };
    assert_eq!(next(&mut *watch).await, change("c/a", 5, first));
    assert_eq!(next(&mut *watch).await, change("c/a", -2, second));
    let mut both = [next(&mut *watch).await, next(&mut *watch).await];
    both.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(both, [change("c/a", -2, third), change("c/b", 0, third)]);
    assert_eq!(next(&mut *watch).await, change("c/a", -1, fourth));
}

/// Additions add to what earlier writes of their commit, and earlier commits of their batch, left,
/// and nothing is added by a commit with a conflict.
pub async fn additions_within_a_batch_are_summed(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    write(engine, vec![add("a", 1), put("b", encode_counter(10)), add("b", 1), add("a", 1)]).await;
    assert_eq!((number(engine, "a").await, number(engine, "b").await), (Some(2), Some(11)));
    write(engine, vec![add("a", 1), delete("a"), add("a", 5), add("b", 1), delete("b")]).await;
    assert_eq!((number(engine, "a").await, number(engine, "b").await), (Some(5), None));
    write(engine, vec![add("a", 1), put("a", encode_counter(100))]).await;
    assert_eq!(number(engine, "a").await, Some(100));

    let when_absent =
        |name: &str, writes| Commit { conditions: vec![Condition::Absent(key(name))], writes };
    let batch = vec![
        blind(vec![add("a", 1), add("b", 1)]),
        when_absent("b", vec![add("a", 1_000)]),
        blind(vec![add("a", 2)]),
        when_absent("c", vec![add("a", 4), put("c", "")]),
        when_absent("c", vec![add("a", 1_000)]),
        blind(vec![delete("b")]),
        blind(vec![add("b", 7)]),
        blind(vec![add("a", 8)]),
    ];
    let outcomes = engine.commit_batch(batch).await.expect("commits");
    let conflicts: Vec<usize> = (0..outcomes.len())
        .filter(|index| matches!(outcomes[*index], Outcome::Conflict { condition: 0 }))
        .collect();
    assert_eq!(conflicts, [1, 4]);
    assert_eq!((number(engine, "a").await, number(engine, "b").await), (Some(115), Some(7)));
    let a = get(engine, "a").await.expect("exists");
    assert_eq!(a.version, committed(outcomes[7]), "of the last addition");
}

/// An addition to something other than a counter, or beyond 64 bits, refuses its commit alone.
pub async fn impossible_additions_are_refused(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    write(engine, vec![put("text", "ten"), put("most", encode_counter(i64::MAX))]).await;
    write(engine, vec![put("empty", "")]).await;
    let refused = |condition| Outcome::Conflict { condition };
    let absent = || vec![Condition::Absent(key("new"))];
    for name in ["text", "empty", "most"] {
        let outcome = try_commit(engine, vec![], vec![add(name, 1)]).await;
        assert_eq!(outcome, refused(0), "{name}");
        // Writes count after the conditions.
        let writes = vec![put("new", ""), add(name, 1)];
        assert_eq!(try_commit(engine, absent(), writes).await, refused(2), "{name}");
    }
    assert_eq!(value(engine, "text").await, Some(key("ten")));
    assert_eq!(value(engine, "new").await, None, "a refused commit has no effect");

    // A condition that does not hold is named first.
    let conditions = vec![Condition::Absent(key("text"))];
    assert_eq!(try_commit(engine, conditions, vec![add("text", 1)]).await, refused(0));

    let batch = vec![
        blind(vec![add("most", 1), put("new", "")]),
        blind(vec![add("most", -1)]),
        blind(vec![add("text", 1)]),
        blind(vec![add("most", 1), add("other", i64::MIN)]),
        blind(vec![add("other", -1)]),
        blind(vec![put("text", encode_counter(1))]),
        blind(vec![add("text", 1)]),
    ];
    let outcomes = engine.commit_batch(batch).await.expect("commits");
    let conflicts: Vec<bool> = outcomes.iter().map(|outcome| *outcome == refused(0)).collect();
    assert_eq!(conflicts, [true, false, true, false, true, false, false]);
    assert_eq!(number(engine, "most").await, Some(i64::MAX));
    assert_eq!(number(engine, "other").await, Some(i64::MIN));
    assert_eq!(number(engine, "text").await, Some(2));
    assert_eq!(value(engine, "new").await, None);
}

/// The largest number of additions per commit works; each counts as a condition, too.
pub async fn many_additions_per_commit(harness: &mut dyn Harness) {
    let engine = &*harness.engine().await;
    let name = |i: usize| format!("c/{i:03}");
    let adds = |count| -> Vec<Write> { (0..count).map(|i| add(name(i), 1 + i as i64)).collect() };
    for _ in 0..3 {
        write(engine, adds(COMMIT_KEYS_MAX)).await;
    }
    for i in [0, COMMIT_KEYS_MAX - 1] {
        assert_eq!(number(engine, &name(i)).await, Some(3 * (1 + i as i64)));
    }
    let half = COMMIT_KEYS_MAX / 2;
    let absent = (0..half).map(|i| Condition::Absent(key(&format!("n/{i}"))));
    let conditions: Vec<Condition> = absent.collect();
    committed(try_commit(engine, conditions.clone(), adds(half)).await);
    let commit = Commit { conditions, writes: adds(half + 1) };
    let refused = engine.commit_batch(vec![commit]).await;
    assert!(matches!(refused, Err(EngineError::TooLarge(_))), "not refused: {refused:?}");
    assert_eq!(number(engine, &name(0)).await, Some(4));
}

/// Several handles that add to the same counter at the same time lose nothing.
pub async fn concurrent_additions_are_not_lost(harness: &mut dyn Harness) {
    const TASKS: i64 = 4;
    const EACH: i64 = 10;
    let mut tasks = Vec::new();
    for task in 1..=TASKS {
        let engine = harness.engine().await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..EACH {
                let own = format!("c/{task}");
                let batch = vec![
                    blind(vec![add("c/all", 1), add(own, 1)]),
                    blind(vec![add("c/all", task)]),
                ];
                let outcomes = engine.commit_batch(batch).await.expect("commits");
                for outcome in outcomes {
                    committed(outcome);
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("the task ends");
    }
    let engine = &*harness.engine().await;
    let each: i64 = (1..=TASKS).map(|task| EACH * (1 + task)).sum();
    assert_eq!(number(engine, "c/all").await, Some(each));
    for task in 1..=TASKS {
        assert_eq!(number(engine, &format!("c/{task}")).await, Some(EACH));
    }
}

/// Counters continue after reopening.
pub async fn additions_survive(harness: &mut dyn Harness) {
    for round in 1..=3 {
        let engine = harness.engine().await;
        write(&*engine, vec![add("c", 1)]).await;
        write(&*engine, vec![add("c", 1)]).await;
        assert_eq!(number(&*engine, "c").await, Some(2 * round));
        drop(engine);
        if !harness.reopen().await {
            return;
        }
    }
    let engine = harness.engine().await;
    assert_eq!(value(&*engine, "c").await, Some(encode_counter(6)));
}

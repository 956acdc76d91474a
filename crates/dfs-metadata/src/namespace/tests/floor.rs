//! The floor is raised while a commit that registers chunks is in flight, so its check is outdated
//! when it takes effect.

use async_trait::async_trait;
use dfs_types::{ErrorCode, Scope};
use tokio::sync::watch;

use super::*;
use crate::conformance::ForwardingEngine;
use crate::engine::{Commit, EngineError, Outcome};

/// An engine whose commits can be held back.
pub(super) struct Gated {
    inner: Arc<MemoryEngine>,
    is_open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

#[async_trait]
impl ForwardingEngine for Gated {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    async fn forward_commits(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
        self.inner.commit_batch(commits).await
    }
}

/// Opens the same cluster as another coordinator.
pub(super) async fn second(fixture: &Fixture) -> (Namespace, Arc<Gated>) {
    let engine = Arc::new(Gated {
        inner: fixture.engine.clone(),
        is_open: watch::Sender::new(true),
        waiting: watch::Sender::new(0),
    });
    let (committer, serving) = Committer::new(engine.clone(), std::future::pending());
    tokio::spawn(serving);
    let components = Components {
        engine: engine.clone(),
        committer,
        clock: fixture.clock.clone(),
        random: Arc::new(SeededRandom::new(9)),
    };
    let namespace = Namespace::open(components, Options::default(), None).await.unwrap();
    (namespace, engine)
}

/// Runs `call` on an engine, and `meanwhile` between its last read and its first commit.
pub(super) async fn interleave<T>(
    engine: &Gated,
    call: impl Future<Output = Result<T, Error>>,
    meanwhile: impl Future<Output = ()>,
) -> Result<T, Error> {
    engine.is_open.send_replace(false);
    engine.waiting.send_replace(0);
    let interrupt = async {
        engine.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.unwrap();
        meanwhile.await;
        engine.is_open.send_replace(true);
    };
    futures_util::future::join(call, interrupt).await.0
}

/// Runs `commit` while the floor is raised above its chunks after it was checked.
async fn overtaken<T>(
    fixture: &Fixture,
    engine: &Gated,
    commit: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let raise = async {
        let later = fixture.clock.now().plus(Duration::from_millis(1));
        fixture.namespace.raise_gc_floor(Scope::internal(), later, None).await.unwrap();
    };
    interleave(engine, commit, raise).await
}

#[tokio::test]
async fn confirm_overtaken_by_the_floor_is_refused() {
    let fixture = Fixture::new().await;
    let (namespace, engine) = second(&fixture).await;
    let plan = fixture.plan("/f", CHUNK).await.unwrap();
    let confirm = fixture.confirm_of(&plan);
    let refused =
        overtaken(&fixture, &engine, namespace.confirm(Scope::internal(), &confirm, None)).await;
    assert_eq!(code(refused), ErrorCode::Stale);
    assert_eq!(code(fixture.stat("/f").await), ErrorCode::NotFound);
    assert_eq!(fixture.count("k/").await, 0, "a collector may have judged it already");
}

#[tokio::test]
async fn stage_overtaken_by_the_floor_is_refused() {
    let fixture = Fixture::new().await;
    let (namespace, engine) = second(&fixture).await;
    let plan = fixture.plan("/f", 2 * CHUNK).await.unwrap();
    let confirm = fixture.confirm_of(&plan);
    let (first, last) = confirm.chunks.split_at(1);
    namespace.stage(Scope::internal(), &confirm.tokens, first).await.unwrap();
    let refused =
        overtaken(&fixture, &engine, namespace.stage(Scope::internal(), &confirm.tokens, last))
            .await;
    assert_eq!(code(refused), ErrorCode::Stale);
    // The earlier one stays: the collector knows it.
    assert_eq!(fixture.count("k/").await, 1);
}

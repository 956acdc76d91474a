//! Raising the write level: members of two releases, crashes between the steps, frozen processes.
//!
//! One build plays both releases: the older one reads levels up to the newest, the newer one reads
//! the one after it.

use async_trait::async_trait;
use dfs_types::{CoordinatorId, ErrorCode, InodeId, NodeState};
use tokio::time::Instant;

use super::*;
use crate::codec::Record as _;
use crate::conformance::ForwardingEngine;
use crate::engine::{Commit, Engine, EngineError, Outcome, Write};
use crate::keys;
use crate::records::inode::Times;

const OLD: Level = Level::NEWEST;
const NEW: Level = Level::REHEARSAL;

fn coordinator(id: u128, level: Level) -> Coordinator {
    let (address, version) = (format!("c{id}:7070"), format!("0.{level}"));
    Coordinator { id: CoordinatorId(id), level, seen: 0, address, version }
}

/// A store used by two releases.
struct Cluster {
    fixture: Fixture,
    engine: Arc<dyn Engine>,
}

impl Cluster {
    /// Adds four datanodes that read `level`.
    async fn with_nodes(level: Level) -> Self {
        let fixture = Fixture::new().await;
        let engine: Arc<dyn Engine> = fixture.engine.clone();
        let cluster = Self { fixture, engine };
        for node in 1..=4 {
            cluster.register(NodeId(node), level).await.unwrap();
        }
        cluster
    }

    /// Opens the store as a release that reads `level`.
    async fn open(&self, level: Level) -> Result<Namespace, Error> {
        self.open_on(self.engine.clone(), level).await
    }

    async fn open_on(&self, engine: Arc<dyn Engine>, level: Level) -> Result<Namespace, Error> {
        let (committer, serving) = Committer::new(engine.clone(), std::future::pending());
        tokio::spawn(serving);
        let (clock, random) = (self.fixture.clock.clone(), self.fixture.random());
        let components = Components { engine, committer, clock, random };
        Namespace::open(components, Options { level, ..Options::default() }, None).await
    }

    async fn register(&self, node: NodeId, level: Level) -> Result<Registered, Error> {
        let scope = Scope::internal();
        // A coordinator of the newer release.
        let namespace = self.open(NEW).await?;
        let number = namespace.node(scope, node).await?.unwrap().confirmed.0;
        let request = Registration { level, ..registration(node, number) };
        let registered = namespace.register(scope, &request, true).await?;
        namespace.confirm_registration(scope, node, registered.number).await?;
        Ok(registered)
    }

    async fn status(&self) -> UpgradeStatus {
        self.open(NEW).await.unwrap().upgrade_status(Scope::internal()).await.unwrap()
    }

    /// Returns the written and the least level.
    async fn levels(&self) -> (Level, Level) {
        let status = self.status().await;
        (status.written, status.least)
    }
}

async fn step(namespace: &Namespace) -> Result<UpgradeStep, Error> {
    let mut sightings = CoordinatorSightings::default();
    let scope = Scope::internal();
    namespace.step_upgrade(scope, &mut sightings, Instant::now(), None, None).await
}

/// Steps until nothing is left to do, and returns how many steps changed something.
async fn settle(namespace: &Namespace) -> Result<u32, Error> {
    let mut steps = 0;
    while step(namespace).await? == UpgradeStep::Changed {
        steps += 1;
        assert!(steps < 10, "the steps never end");
    }
    Ok(steps)
}

async fn mkdir(namespace: &Namespace, at: &str) -> Result<FileStat, Error> {
    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
    let request = MakeDirectory { target: path(at), parents: false, attributes };
    namespace.make_directory(Scope::internal(), &request, None).await
}

#[tokio::test]
async fn level_is_raised_once_every_member_reads_it() {
    let scope = Scope::internal();
    let cluster = Cluster::with_nodes(OLD).await;
    let old = cluster.open(OLD).await.unwrap();
    let new = cluster.open(NEW).await.unwrap();
    old.enter_coordinator(scope, &coordinator(1, OLD)).await.unwrap();
    new.enter_coordinator(scope, &coordinator(2, NEW)).await.unwrap();
    assert_eq!(settle(&new).await.unwrap(), 0, "no level was requested");
    // The older release knows no newer level.
    assert_eq!(old.finalize_upgrade(scope).await.unwrap().wanted, OLD);

    assert_eq!(new.finalize_upgrade(scope).await.unwrap().wanted, NEW);
    settle(&new).await.unwrap();
    let status = cluster.status().await;
    assert_eq!((status.written, status.least), (OLD, OLD));
    assert_eq!(status.blocked_by.len(), 5, "{status:?}");
    assert!(status.blocked_by[0].contains("at c1:7070 (release 0.1, level 1)"), "{status:?}");

    // The members upgrade one by one. Removed ones do not count.
    old.leave_coordinators(scope, CoordinatorId(1)).await.unwrap();
    for node in 1..=3 {
        cluster.register(NodeId(node), NEW).await.unwrap();
    }
    new.set_node_state(scope, NodeId(4), NodeState::Removed).await.unwrap();
    new.finalize_upgrade(scope).await.unwrap();
    assert_eq!(settle(&new).await.unwrap(), 2);
    assert_eq!(cluster.levels().await, (NEW, NEW));
    assert_eq!(cluster.status().await.blocked_by, [""; 0]);

    // The older release can neither start nor continue, and changes nothing.
    let started = cluster.open(OLD).await;
    assert!(matches!(started, Err(Error::ReleaseTooOld { level: OLD, needed: NEW })));
    let before = cluster.engine.snapshot().await.unwrap().revision();
    assert_eq!(code(mkdir(&old, "/late").await), ErrorCode::UnsupportedVersion);
    let lease = old.lease(scope, "workers", "old", HOUR).await;
    assert_eq!(code(lease), ErrorCode::UnsupportedVersion);
    let register = cluster.register(NodeId(1), OLD).await;
    assert!(matches!(register, Err(Error::NodeTooOld { .. })), "{register:?}");
    assert_eq!(cluster.engine.snapshot().await.unwrap().revision(), before);
}

#[tokio::test]
async fn start_between_steps_is_refused_or_noticed() {
    let scope = Scope::internal();
    let cluster = Cluster::with_nodes(NEW).await;
    let old = cluster.open(OLD).await.unwrap();
    let new = cluster.open(NEW).await.unwrap();
    // A member that joined before `least` was raised keeps the level down, and continues to run.
    new.finalize_upgrade(scope).await.unwrap();
    step(&new).await.unwrap();
    assert_eq!(cluster.levels().await, (OLD, NEW), "older releases cannot join");
    let late = old.enter_coordinator(scope, &coordinator(1, OLD)).await;
    assert_eq!(code(late), ErrorCode::UnsupportedVersion);
    assert_eq!(code(cluster.open(OLD).await.map(drop)), ErrorCode::UnsupportedVersion);
    let register = cluster.register(NodeId(2), OLD).await;
    assert_eq!(code(register), ErrorCode::UnsupportedVersion);
    mkdir(&old, "/still-level-1").await.unwrap();
    settle(&new).await.unwrap();
    assert_eq!(cluster.levels().await, (NEW, NEW));
}

#[tokio::test]
async fn older_member_that_just_joined_takes_least_back() {
    let scope = Scope::internal();
    let cluster = Cluster::with_nodes(NEW).await;
    let old = cluster.open(OLD).await.unwrap();
    let new = cluster.open(NEW).await.unwrap();
    new.finalize_upgrade(scope).await.unwrap();
    // Another holder of the lease raised `least` just after the member joined.
    old.enter_coordinator(scope, &coordinator(1, OLD)).await.unwrap();
    let closed = crate::records::format::StoreFormat { written: OLD, least: NEW };
    let value = closed.encode(OLD);
    let write = Write::Put(keys::FORMAT, value.into());
    cluster
        .engine
        .commit_batch(vec![Commit { conditions: vec![], writes: vec![write] }])
        .await
        .unwrap();
    // It continues to run: renewing an entry is not joining.
    old.enter_coordinator(scope, &coordinator(1, OLD)).await.unwrap();
    assert_eq!(settle(&new).await.unwrap(), 1);
    let status = cluster.status().await;
    assert_eq!((status.written, status.least, status.wanted), (OLD, OLD, NEW));
    assert!(status.blocked_by[0].contains("c1:7070"), "{status:?}");
    mkdir(&old, "/d").await.unwrap();
}

/// An engine whose process is killed at one of its commits, before or after it takes effect.
struct Killed {
    inner: Arc<dyn Engine>,
    commits_left: AtomicU64,
    is_lost_reply: bool,
}

#[async_trait]
impl ForwardingEngine for Killed {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    async fn forward_commits(&self, commits: Vec<Commit>) -> Result<Vec<Outcome>, EngineError> {
        let left = self.commits_left.load(Ordering::Relaxed);
        if left > 0 {
            self.commits_left.store(left - 1, Ordering::Relaxed);
            return self.inner.commit_batch(commits).await;
        }
        if self.is_lost_reply {
            self.inner.commit_batch(commits).await?;
        }
        Err(EngineError::OutcomeUnknown("killed".to_owned()))
    }
}

#[tokio::test]
async fn crash_at_any_step_is_completed_or_undone() {
    let scope = Scope::internal();
    for commits_left in 0..3 {
        for is_lost_reply in [false, true] {
            for is_blocked in [false, true] {
                let cluster = Cluster::with_nodes(NEW).await;
                let asked = cluster.open(NEW).await.unwrap();
                asked.finalize_upgrade(scope).await.unwrap();
                let commits_left = AtomicU64::new(commits_left);
                let inner = cluster.engine.clone();
                let engine = Arc::new(Killed { inner, commits_left, is_lost_reply });
                let killed = cluster.open_on(engine, NEW).await.unwrap();
                let ended = settle(&killed).await;
                let is_closed = cluster.levels().await == (OLD, NEW);
                let was_raised = cluster.levels().await == (NEW, NEW);
                assert!(ended.is_err() || was_raised);
                let old = cluster.open(OLD).await;
                assert_eq!(old.is_ok(), !is_closed && !was_raised);
                if is_blocked && let Ok(old) = old {
                    old.enter_coordinator(scope, &coordinator(1, OLD)).await.unwrap();
                    asked.finalize_upgrade(scope).await.unwrap();
                    settle(&asked).await.unwrap();
                    assert_eq!(cluster.levels().await, (OLD, OLD));
                    mkdir(&old, "/d").await.unwrap();
                } else {
                    settle(&asked).await.unwrap();
                    assert_eq!(cluster.levels().await, (NEW, NEW));
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_coordinator_is_dropped_and_cannot_write_late() {
    let scope = Scope::internal();
    let cluster = Cluster::with_nodes(NEW).await;
    let frozen = cluster.open(OLD).await.unwrap();
    let new = cluster.open(NEW).await.unwrap();
    frozen.enter_coordinator(scope, &coordinator(1, OLD)).await.unwrap();
    new.enter_coordinator(scope, &coordinator(2, NEW)).await.unwrap();
    let mut sightings = CoordinatorSightings::default();
    for _ in 0..4 {
        new.finalize_upgrade(scope).await.unwrap();
        while new.step_upgrade(scope, &mut sightings, Instant::now(), None, None).await.unwrap()
            == UpgradeStep::Changed
        {}
        tokio::time::advance(Duration::from_mins(1)).await;
        new.enter_coordinator(scope, &coordinator(2, NEW)).await.unwrap();
    }
    assert_eq!(cluster.levels().await, (NEW, NEW));
    let left = new.coordinators(scope).await.unwrap();
    assert_eq!(left.iter().map(|left| left.id).collect::<Vec<_>>(), [CoordinatorId(2)]);
    // It wakes up in the middle of a change.
    assert_eq!(code(mkdir(&frozen, "/d").await), ErrorCode::UnsupportedVersion);
    assert_eq!(code(cluster.fixture.stat("/d").await), ErrorCode::NotFound);
    let renewed = frozen.enter_coordinator(scope, &coordinator(1, OLD)).await;
    assert_eq!(code(renewed), ErrorCode::UnsupportedVersion);
}

/// Load through two coordinators while the level is raised: nothing is lost, and each commit writes
/// the level that holds at its revision.
#[tokio::test]
async fn level_is_raised_under_load_without_a_late_commit() {
    let scope = Scope::internal();
    let cluster = Cluster::with_nodes(NEW).await;
    let made = Arc::new(AtomicU64::new(0));
    let mut load = Vec::new();
    for number in 0..8 {
        let namespace = cluster.open(NEW).await.unwrap();
        let made = made.clone();
        load.push(tokio::spawn(async move {
            let (mut steps, mut steps_raised) = (0, 0);
            while steps_raised < 5 {
                assert!(steps < 1_000, "the level is not raised");
                mkdir(&namespace, &format!("/{number}-{steps}")).await.unwrap();
                steps += 1;
                steps_raised += u32::from(namespace.written_level() == NEW);
                made.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            steps
        }));
    }
    let raiser = cluster.open(NEW).await.unwrap();
    while made.load(Ordering::Relaxed) < 20 {
        tokio::task::yield_now().await;
    }
    raiser.finalize_upgrade(scope).await.unwrap();
    settle(&raiser).await.unwrap();
    for (number, load) in load.into_iter().enumerate() {
        for step in 0..load.await.unwrap() {
            raiser.stat(scope, &path(&format!("/{number}-{step}")), true).await.unwrap();
        }
    }
    let snapshot = cluster.engine.snapshot().await.unwrap();
    let raised_at = snapshot.get(&keys::FORMAT).await.unwrap().unwrap().version;
    let times = snapshot.range(b"t/", &[], 10_000).await.unwrap();
    let (mut before, mut after) = (0, 0);
    for (key, found) in &times {
        let read = |level| Times::decode(key, &found.value, level);
        if found.version < raised_at {
            before += 1;
            assert!(read(OLD).is_ok(), "{:?}", read(OLD));
        } else {
            after += 1;
            assert!(matches!(read(OLD), Err(Error::NewerRecord { .. })), "{:?}", read(OLD));
            assert!(read(NEW).is_ok(), "{:?}", read(NEW));
        }
    }
    assert!(before > 0 && after > 0, "{before} and {after}");
    assert!(check(&*cluster.engine).await.is_clean());
}

async fn check(engine: &dyn Engine) -> crate::check::Report {
    crate::check::check(engine, &|_| ()).await.unwrap()
}

/// A check decodes records at the level the cluster writes, not at the newest one the release reads.
#[tokio::test]
async fn record_above_the_written_level_is_reported() {
    let cluster = Cluster::with_nodes(NEW).await;
    assert!(check(&*cluster.engine).await.is_clean());
    let key = keys::times(InodeId::ROOT);
    let found = cluster.engine.snapshot().await.unwrap().get(&key).await.unwrap().unwrap();
    let root = Times::decode(&key, &found.value, OLD).unwrap();
    let write = Write::Put(key.clone(), root.encode(NEW).into());
    let commit = Commit { conditions: vec![], writes: vec![write] };
    cluster.engine.commit_batch(vec![commit]).await.unwrap();
    let report = check(&*cluster.engine).await;
    let found: Vec<_> = report.problems.iter().map(|found| (found.kind, &found.key)).collect();
    assert_eq!(found, [(crate::check::ProblemKind::NewerFormat, &keys::show(&key))]);
}

#[tokio::test]
async fn prerelease_store_is_refused_by_name() {
    let fixture = Fixture::new().await;
    let write = Write::Delete(keys::FORMAT);
    fixture
        .engine
        .commit_batch(vec![Commit { conditions: vec![], writes: vec![write] }])
        .await
        .unwrap();
    let opened = open(&fixture.engine, &fixture.clock, &fixture.random(), None).await;
    let error = opened.unwrap_err();
    assert_eq!(error.start_code(), ErrorCode::UnsupportedVersion);
    assert!(error.to_string().contains("before the first release"), "{error}");
    assert!(matches!(find(&*fixture.engine).await, Err(Error::OldStore)));
}

//! Builds of the fake: as many at a time as are ordered, held up or failing as a test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use dfs_proto::Failure;
use dfs_types::{ChunkId, ErrorCode};
use tokio::sync::watch;

use super::FakeDataNode;

/// Builds that do not end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Held {
    #[default]
    None,
    All,
    Of(ChunkId),
}

#[derive(Default)]
pub(super) struct Builds {
    held: watch::Sender<Held>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    now: usize,
    most: usize,
    orders: BTreeMap<ChunkId, usize>,
    failing: BTreeSet<ChunkId>,
    fails_all: bool,
    failed: usize,
    is_cut_off: bool,
    cut_off: usize,
}

/// A build in progress.
pub(super) struct Building<'a>(&'a Builds);

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().unwrap().now -= 1;
    }
}

impl Builds {
    /// Begins a build, and waits until it may end.
    pub(super) async fn enter(&self, chunk: ChunkId) -> Result<Building<'_>, Failure> {
        let (building, fails) = {
            let mut seen = self.seen.lock().unwrap();
            seen.now += 1;
            seen.most = seen.most.max(seen.now);
            *seen.orders.entry(chunk).or_default() += 1;
            let fails = seen.fails_all || seen.failing.contains(&chunk);
            seen.failed += usize::from(fails);
            (Building(self), fails)
        };
        let ends = |held: &Held| *held != Held::All && *held != Held::Of(chunk);
        let _ = self.held.subscribe().wait_for(ends).await;
        if fails {
            return Err(Failure::new(ErrorCode::Internal, "the build fails, as planned"));
        }
        Ok(building)
    }
}

impl FakeDataNode {
    /// Lets no build end.
    pub(crate) fn hold_builds(&self) {
        self.builds.held.send_replace(Held::All);
    }

    /// Lets no build of this chunk end.
    pub(crate) fn hold_build_of(&self, chunk: ChunkId) {
        self.builds.held.send_replace(Held::Of(chunk));
    }

    /// Lets all builds end.
    pub(crate) fn release_builds(&self) {
        self.builds.held.send_replace(Held::None);
    }

    /// Lets every build of this chunk fail.
    pub(crate) fn fail_builds_of(&self, chunk: ChunkId) {
        self.builds.seen.lock().unwrap().failing.insert(chunk);
    }

    /// Lets every build fail, until this is called with `false`.
    pub(crate) fn fail_builds(&self, fails: bool) {
        self.builds.seen.lock().unwrap().fails_all = fails;
    }

    /// Lets no build reach a source, until this is called with `false`.
    pub(crate) fn cut_off_builds(&self, is_cut_off: bool) {
        self.builds.seen.lock().unwrap().is_cut_off = is_cut_off;
    }

    /// Notes a build if it reaches no source. Returns whether that is so.
    pub(super) fn is_cut_off(&self) -> bool {
        let mut seen = self.builds.seen.lock().unwrap();
        seen.cut_off += usize::from(seen.is_cut_off);
        seen.is_cut_off
    }

    /// Returns how many builds have reached no source.
    pub(crate) fn builds_cut_off(&self) -> usize {
        self.builds.seen.lock().unwrap().cut_off
    }

    /// Returns how many builds have failed.
    pub(crate) fn failed_builds(&self) -> usize {
        self.builds.seen.lock().unwrap().failed
    }

    /// Returns the number of builds in progress.
    pub(crate) fn building(&self) -> usize {
        self.builds.seen.lock().unwrap().now
    }

    /// Returns the greatest number of builds that were in progress at a time.
    pub(crate) fn most_builds(&self) -> usize {
        self.builds.seen.lock().unwrap().most
    }

    /// Returns how often a chunk was ordered to be built.
    pub(crate) fn build_orders(&self, chunk: ChunkId) -> usize {
        self.builds.seen.lock().unwrap().orders.get(&chunk).copied().unwrap_or_default()
    }
}

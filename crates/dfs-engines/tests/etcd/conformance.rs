//! The conformance suite of engines, on one member and on three.

use std::sync::Arc;

use async_trait::async_trait;
use dfs_etcd::test_server::Cluster;
use dfs_metadata::conformance::Harness;
use dfs_metadata::engine::Engine;
use tokio::sync::OnceCell;

use super::{fresh_prefix, open};

const NAMESPACE_HISTORIES: u64 = 60;

/// A store under its own prefix, on members shared by all checks.
struct Prefix {
    members: usize,
    prefix: String,
}

impl Prefix {
    fn new(members: usize) -> Self {
        Self { members, prefix: fresh_prefix() }
    }
}

#[async_trait]
impl Harness for Prefix {
    async fn engine(&mut self) -> Arc<dyn Engine> {
        static ONE: OnceCell<Cluster> = OnceCell::const_new();
        static THREE: OnceCell<Cluster> = OnceCell::const_new();
        let cell = if self.members == 1 { &ONE } else { &THREE };
        let cluster = cell.get_or_init(|| Cluster::start(self.members)).await;
        Arc::new(open(cluster.addresses(), &self.prefix).await)
    }

    async fn reopen(&mut self) -> bool {
        true
    }
}

mod one_member {
    use super::Prefix;

    dfs_metadata::engine_conformance!(Prefix::new(1));
}

mod three_members {
    use super::Prefix;

    dfs_metadata::engine_conformance!(Prefix::new(3));
}

/// Namespace histories: two coordinators, each with its own handle.
#[tokio::test]
async fn namespace_histories() {
    let mut conflicts = 0;
    for seed in 0..NAMESPACE_HISTORIES {
        conflicts += dfs_metadata::conformance::namespace_history(&mut Prefix::new(3), seed).await;
    }
    assert!(conflicts >= NAMESPACE_HISTORIES / 2, "too few conflicts: {conflicts}");
}

#[tokio::test]
async fn file_of_10_000_extents() {
    let mut store = Prefix::new(3);
    dfs_metadata::conformance::file_of_many_extents(&mut store).await;
}

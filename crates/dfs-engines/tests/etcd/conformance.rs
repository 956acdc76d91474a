//! The suite that every engine passes, on one member and on three.

use std::sync::Arc;

use async_trait::async_trait;
use dfs_etcd::test_server::Cluster;
use dfs_metadata::conformance::Harness;
use dfs_metadata::engine::Engine;
use tokio::sync::OnceCell;

use super::{fresh_prefix, open};

const NAMESPACE_HISTORIES: u64 = 60;

/// A store under a prefix of its own, on members that all checks share.
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

/// The namespace on it: two coordinators, each with a handle of its own.
#[tokio::test]
async fn namespace_histories() {
    let mut conflicts = 0;
    for seed in 0..NAMESPACE_HISTORIES {
        conflicts += dfs_metadata::conformance::namespace_history(&mut Prefix::new(3), seed).await;
    }
    assert!(conflicts >= NAMESPACE_HISTORIES / 2, "they hardly met: {conflicts} conflicts");
}

#[tokio::test]
async fn a_file_of_many_extents() {
    let mut store = Prefix::new(3);
    dfs_metadata::conformance::file_of_many_extents(&mut store).await;
}

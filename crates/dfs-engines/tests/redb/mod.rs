//! The engine on redb.
#![cfg(feature = "redb")]

mod backend;
mod crashes;
mod damage;
mod failures;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_engines::Execution;
use dfs_engines::redb::{Options, RedbEngine};
use dfs_metadata::conformance::Harness;
use dfs_metadata::engine::{Commit, Engine, EngineError, Outcome, Write};
use dfs_types::Revision;
use tempfile::TempDir;

const NAMESPACE_HISTORIES: u64 = 60;

struct Folder {
    path: TempDir,
    execution: Execution,
    engine: Option<RedbEngine>,
}

impl Folder {
    fn new(execution: Execution) -> Self {
        Self { path: tempfile::tempdir().unwrap(), execution, engine: None }
    }
}

#[async_trait]
impl Harness for Folder {
    async fn engine(&mut self) -> Arc<dyn Engine> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => open(self.path.path(), self.execution).await.unwrap(),
        };
        Arc::new(self.engine.insert(engine).clone())
    }

    async fn reopen(&mut self) -> bool {
        self.engine = None;
        true
    }
}

mod conformance {
    use super::{Execution, Folder};

    mod blocking {
        use super::{Execution, Folder};

        dfs_metadata::engine_conformance!(Folder::new(Execution::Blocking));
    }

    mod inline {
        use super::{Execution, Folder};

        dfs_metadata::engine_conformance!(Folder::new(Execution::Inline));
    }
}

/// Namespace histories: two coordinators that share the engine.
#[tokio::test]
async fn namespace_histories() {
    let mut conflicts = 0;
    for seed in 0..NAMESPACE_HISTORIES {
        let mut folder = Folder::new(Execution::Blocking);
        conflicts += dfs_metadata::conformance::namespace_history(&mut folder, seed).await;
    }
    assert!(conflicts >= NAMESPACE_HISTORIES / 2, "too few conflicts: {conflicts}");
}

#[tokio::test]
async fn file_of_10_000_extents() {
    let mut folder = Folder::new(Execution::Blocking);
    dfs_metadata::conformance::file_of_many_extents(&mut folder).await;
}

fn options(execution: Execution) -> Options {
    Options { execution, ..Options::default() }
}

async fn open(folder: &Path, execution: Execution) -> Result<RedbEngine, EngineError> {
    RedbEngine::open(folder, options(execution)).await
}

fn put(key: &str, value: impl AsRef<[u8]>) -> Write {
    Write::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_ref()))
}

async fn write(engine: &RedbEngine, writes: Vec<Write>) -> Result<Revision, EngineError> {
    let commit = Commit { conditions: vec![], writes };
    match engine.commit_batch(vec![commit]).await?[0] {
        Outcome::Committed(revision) => Ok(revision),
        Outcome::Conflict { .. } => panic!("a commit without conditions had a conflict"),
    }
}

async fn value(engine: &RedbEngine, key: &str) -> Result<Option<Bytes>, EngineError> {
    let found = engine.snapshot().await?.get(key.as_bytes()).await?;
    Ok(found.map(|found| found.value))
}

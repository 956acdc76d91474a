//! Metadata engines on real stores, each behind a feature: the [`Engine`] trait of `dfs-metadata`
//! on redb, embedded into the one coordinator that uses it.

mod execution;
#[cfg(feature = "redb")]
pub mod redb;

use std::path::Path;
use std::sync::Arc;

use dfs_metadata::engine::{Engine, EngineError};
use dfs_metadata::memory::MemoryEngine;
use dfs_types::ErrorCode;

pub use execution::Execution;

/// The forms of a URL that [`open`] understands.
const KNOWN_URLS: &str = "redb:///absolute/folder, or memory: for tests";

/// Why a URL gave no engine.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no engine.
    #[error("metadata url {0:?} is not understood, give {KNOWN_URLS}")]
    UnknownUrl(String),
    /// The engine refused.
    #[error("cannot open the metadata at {url}")]
    Engine {
        /// What was to be opened.
        url: String,
        /// Why it was refused.
        #[source]
        source: EngineError,
    },
}

impl OpenError {
    /// The code of a process that cannot start because of it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownUrl(_) => ErrorCode::InvalidArgument,
            Self::Engine { source, .. } => source.start_code(),
        }
    }
}

/// Opens the engine that `url` names: `redb:///absolute/folder` or `memory:`. The path is taken as
/// it stands, without decoding of `%`. A folder that does not exist is made, with an empty store.
pub async fn open(url: &str) -> Result<Arc<dyn Engine>, OpenError> {
    if url == "memory:" {
        return Ok(Arc::new(MemoryEngine::new()));
    }
    #[cfg(feature = "redb")]
    if let Some(path) = url.strip_prefix("redb://")
        && Path::new(path).is_absolute()
    {
        return match redb::RedbEngine::open(Path::new(path), redb::Options::default()).await {
            Ok(engine) => Ok(Arc::new(engine)),
            Err(source) => Err(OpenError::Engine { url: url.to_owned(), source }),
        };
    }
    Err(OpenError::UnknownUrl(url.to_owned()))
}

//! Metadata engines on real stores, each behind a feature: the [`Engine`] trait of `dfs-metadata`
//! on redb, embedded in the one coordinator that uses it, and on etcd, which several share.

#[cfg(feature = "etcd")]
pub mod etcd;
mod execution;
#[cfg(feature = "redb")]
pub mod redb;

use std::path::Path;
use std::sync::Arc;

use dfs_metadata::engine::{Engine, EngineError};
use dfs_metadata::memory::MemoryEngine;
use dfs_types::ErrorCode;

pub use execution::Execution;

/// URL forms that [`open`] accepts.
const KNOWN_URLS: &str =
    "redb:///absolute/directory, etcd://host:port,host:port/prefix, or memory: for tests";

/// Why a URL could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no known engine.
    #[error("metadata url {0:?} is not supported; give {KNOWN_URLS}")]
    UnknownUrl(String),
    /// The URL is invalid.
    #[error("metadata url {url:?} is invalid: {why}")]
    WrongUrl {
        /// The URL.
        url: String,
        /// Description of the defect.
        why: String,
    },
    /// The engine failed to open.
    #[error("cannot open the metadata at {url}")]
    Engine {
        /// The URL.
        url: String,
        /// Cause.
        #[source]
        source: EngineError,
    },
}

impl OpenError {
    /// Returns the code of a process that cannot start because of it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownUrl(_) | Self::WrongUrl { .. } => ErrorCode::InvalidArgument,
            Self::Engine { source, .. } => source.start_code(),
        }
    }
}

/// Opens the engine of `url`: `redb:///absolute/directory`, `etcd://host:port,…/prefix`, with TLS
/// `etcds://`, or `memory:`. The URL is used verbatim, without decoding of `%`. A missing directory
/// or prefix is created, with an empty store.
///
/// For etcd `?user=…&password-file=…&ca=…&cert=…&key=…` may follow. The password is read from that
/// file or from the variable `DFS_ETCD_PASSWORD`, never from the URL.
pub async fn open(url: &str) -> Result<Arc<dyn Engine>, OpenError> {
    if url == "memory:" {
        return Ok(Arc::new(MemoryEngine::new()));
    }
    #[cfg(feature = "redb")]
    if let Some(folder) = redb_folder(url) {
        return match redb::RedbEngine::open(folder, redb::Options::default()).await {
            Ok(engine) => Ok(Arc::new(engine)),
            Err(source) => Err(OpenError::Engine { url: url.to_owned(), source }),
        };
    }
    #[cfg(feature = "etcd")]
    if etcd::url::Url::matches(url) {
        return open_etcd(url).await;
    }
    Err(OpenError::UnknownUrl(url.to_owned()))
}

/// Opens the engine of `url` to be read: a redb store is neither created nor changed, not even to recover
/// it, and commits to it are lost. `None` if there is no such store. Others are opened as by [`open`].
pub async fn open_unchanged(url: &str) -> Result<Option<Arc<dyn Engine>>, OpenError> {
    #[cfg(feature = "redb")]
    if let Some(folder) = redb_folder(url) {
        let opened = redb::RedbEngine::open_unchanged(folder, redb::Options::default()).await;
        return match opened {
            Ok(engine) => Ok(engine.map(|engine| Arc::new(engine) as Arc<dyn Engine>)),
            Err(source) => Err(OpenError::Engine { url: url.to_owned(), source }),
        };
    }
    open(url).await.map(Some)
}

#[cfg(feature = "redb")]
fn redb_folder(url: &str) -> Option<&Path> {
    url.strip_prefix("redb://").map(Path::new).filter(|folder| folder.is_absolute())
}

#[cfg(feature = "etcd")]
async fn open_etcd(url: &str) -> Result<Arc<dyn Engine>, OpenError> {
    let wrong = |why| OpenError::WrongUrl { url: url.to_owned(), why };
    let parsed = etcd::url::Url::parse(url).map_err(wrong)?;
    let prefix = parsed.prefix.clone();
    let settings = Execution::Blocking.run(move || parsed.settings()).await;
    let settings = settings
        .unwrap_or_else(|| Err("the process is shutting down".to_owned()))
        .map_err(wrong)?;
    match etcd::EtcdEngine::open(&settings, &prefix, etcd::Options::default()).await {
        Ok(engine) => Ok(Arc::new(engine)),
        Err(source) => Err(OpenError::Engine { url: url.to_owned(), source }),
    }
}

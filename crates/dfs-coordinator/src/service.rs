//! One running coordinator.

use std::net::SocketAddr;
use std::sync::Arc;

use dfs_metadata::engine::Engine;
use dfs_runtime::{Readiness, Shutdown};
use dfs_transport::Network;
use dfs_types::{Clock, ClusterId, Random};

use crate::{Error, InitOptions, Settings};

/// What a coordinator is built on; passed in, so that a simulation can decide all of it.
#[derive(Clone)]
pub struct Components {
    /// Where the metadata lies.
    pub engine: Arc<dyn Engine>,
    /// How others are reached.
    pub network: Arc<dyn Network>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where ids, keys and choices come from.
    pub random: Arc<dyn Random>,
}

/// What others may know of a running coordinator. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Where the gRPC service listens.
    pub address: SocketAddr,
    /// Where /metrics, /healthz and /readyz listen, if anywhere.
    pub http_address: Option<SocketAddr>,
    /// Whether it can do its work.
    pub readiness: Readiness,
}

/// A coordinator that listens, and answers once it [runs](Self::run).
pub struct Service {
    handle: Handle,
}

impl Service {
    /// Checks the settings, reads which cluster the store holds, and listens.
    pub async fn start(settings: Settings, components: Components) -> Result<Self, Error> {
        let _ = (settings, components);
        todo!()
    }

    /// What others may know of it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers until the order to stop, then lets calls under way end within the set time. When it
    /// returns nothing of it runs any more. Dropping the future is like a crash: nothing
    /// acknowledged is lost.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let _ = shutdown;
        todo!()
    }
}

/// Makes a cluster in an empty metadata store, on purpose and once: a store that holds one already
/// is refused and stays as it is.
pub async fn init(
    engine: Arc<dyn Engine>,
    clock: &dyn Clock,
    random: &dyn Random,
    options: InitOptions,
) -> Result<ClusterId, Error> {
    let _ = (engine, clock, random, options);
    todo!()
}

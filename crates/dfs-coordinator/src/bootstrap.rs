//! A coordinator that waits on a store without a cluster.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::namespace;
use dfs_runtime::Shutdown;
use dfs_transport::{ConnectionLimits, Io, Listener};
use dfs_types::with_causes;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::warn;

use crate::grpc::{GATE, Initialiser, waiting_routes};
use crate::metrics::Counts;

/// Interval of checking whether another coordinator created the cluster.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Time for calls to end before the listener is handed over; only those that watch the health take
/// long.
const HAND_OVER: Duration = Duration::from_millis(500);

/// Serves the waiting services on `listener` until the store holds a cluster, created by any
/// coordinator. Returns the listener, on which connections wait meanwhile; `None` after the order to
/// stop.
pub(crate) async fn wait(
    initialiser: Initialiser,
    listener: Box<dyn Listener>,
    counts: Arc<Counts>,
    stopping: &Shutdown,
) -> Option<Box<dyn Listener>> {
    let initialiser = Arc::new(initialiser);
    let routes = waiting_routes(initialiser.clone()).await;
    let lent = Lent { address: listener.local_address(), listener: Arc::new(Mutex::new(listener)) };
    let (stop, ends) = Shutdown::new();
    let ends = async move { ends.requested().await };
    let limits = ConnectionLimits::default();
    let lending = Box::new(lent.clone());
    let serving = dfs_transport::serve(lending, limits, routes, GATE, counts, ends, HAND_OVER);
    let mut serving = Box::pin(serving);
    let has_cluster = tokio::select! {
        biased;
        () = stopping.requested() => false,
        () = &mut serving => false,
        () = found(&initialiser) => true,
    };
    stop.stop();
    serving.await;
    has_cluster.then(|| Box::new(lent) as Box<dyn Listener>)
}

/// Waits until the store holds a cluster.
async fn found(initialiser: &Initialiser) {
    loop {
        tokio::select! {
            () = initialiser.made.notified() => return,
            () = sleep(CHECK_EVERY) => {}
        }
        match namespace::find(&*initialiser.components.engine).await {
            Ok(Some(_)) => return,
            Ok(None) => {}
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "cannot read the metadata store while waiting for init");
            }
        }
    }
}

/// A listener that is lent to one server after another.
#[derive(Clone)]
struct Lent {
    address: SocketAddr,
    listener: Arc<Mutex<Box<dyn Listener>>>,
}

#[async_trait]
impl Listener for Lent {
    fn local_address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&mut self) -> io::Result<(Io, IpAddr)> {
        self.listener.lock().await.accept().await
    }
}

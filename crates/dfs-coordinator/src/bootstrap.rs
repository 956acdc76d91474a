//! A coordinator whose store holds no cluster yet, and which was told to wait for one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_metadata::namespace;
use dfs_runtime::Shutdown;
use dfs_transport::{Io, Listener};
use dfs_types::with_causes;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::warn;

use crate::Error;
use crate::grpc::{GATE, Initialiser, waiting_routes};
use crate::metrics::Counts;

/// How often it is looked whether another coordinator made the cluster.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long calls that were answered while it waited may take to end; none of them takes long but
/// those that watch the health.
const HAND_OVER: Duration = Duration::from_millis(500);

/// Answers on `listener` that it waits, until the store holds a cluster, whoever made it. Gives the
/// listener back, on which connections wait meanwhile; `None` after the order to stop.
pub(crate) async fn wait(
    initialiser: Initialiser,
    listener: Box<dyn Listener>,
    counts: Arc<Counts>,
    stopping: &Shutdown,
) -> Result<Option<Box<dyn Listener>>, Error> {
    let initialiser = Arc::new(initialiser);
    let routes = waiting_routes(initialiser.clone()).await;
    let lent = Lent { address: listener.local_address(), listener: Arc::new(Mutex::new(listener)) };
    let (stop, ends) = Shutdown::new();
    let ends = async move { ends.requested().await };
    let serving =
        dfs_transport::serve(Box::new(lent.clone()), routes, GATE, counts, ends, HAND_OVER);
    let mut serving = Box::pin(serving);
    let has_cluster = tokio::select! {
        biased;
        () = stopping.requested() => false,
        // It broke.
        served = &mut serving => return served.map(|()| None).map_err(Error::Serve),
        () = found(&initialiser) => true,
    };
    stop.stop();
    serving.await.map_err(Error::Serve)?;
    Ok(has_cluster.then(|| Box::new(lent) as Box<dyn Listener>))
}

/// Returns once the store holds a cluster.
async fn found(initialiser: &Initialiser) {
    loop {
        tokio::select! {
            () = initialiser.made.notified() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        match namespace::find(&*initialiser.components.engine).await {
            Ok(Some(_)) => return,
            Ok(None) => {}
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "the metadata store cannot be looked into while waiting for init");
            }
        }
    }
}

/// A listener that one server has after the other.
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

    async fn accept(&mut self) -> io::Result<Io> {
        self.listener.lock().await.accept().await
    }
}

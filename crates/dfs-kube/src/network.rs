//! Connections to pods.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use dfs_transport::{Io, Listener, Network};
use dfs_types::with_causes;

use crate::Error;
use crate::pods::{Component, Pod, Pods};
use crate::stream;

/// Time limit of a connection: two round trips to the API server and one beyond, which may be far
/// away.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The network of one cluster, reached through the API server. Clones share what is known about it.
///
/// Connects to the pod that an address refers to: by pod name, DNS name, or IP. Listening is not
/// supported.
#[derive(Clone)]
pub struct KubeNetwork {
    pods: Pods,
}

impl KubeNetwork {
    pub(crate) fn new(pods: Pods) -> Self {
        Self { pods }
    }
}

#[async_trait]
impl Network for KubeNetwork {
    async fn connect(&self, address: &str) -> io::Result<Io> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "expected host:port");
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let Some(pod) = self.pods.at(host).await.map_err(|error| failed(&error))? else {
            let namespace = self.pods.namespace();
            let message = format!("no pod of the cluster in namespace {namespace} is {host}");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        };
        if pod.phase != "Running" {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, pod.to_string()));
        }
        let forwarded = self.pods.api().portforward(&pod.name, &[port]).await;
        let stream = forwarded
            .map_err(|error| match error {
                kube::Error::Api(status) if status.is_forbidden() => {
                    failed(&Error::Forbidden { message: status.message })
                }
                error => io::Error::other(format!("pod {}: {}", pod.name, with_causes(&error))),
            })
            .and_then(|forwarder| {
                let stream = stream::stream(forwarder, port, &pod.name);
                stream.ok_or_else(|| io::Error::other("the API server does not forward the port"))
            })?;
        tracing::debug!(pod = pod.name, port, "forwarding a port");
        Ok(stream)
    }

    fn connect_timeout(&self) -> Duration {
        CONNECT_WITHIN
    }

    async fn listen(&self, _: &str) -> io::Result<Box<dyn Listener>> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "listening through an API server is not supported",
        ))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<String>> {
        if name != self.pods.coordinators() {
            return Ok(vec![name.to_owned()]);
        }
        let pods = self.pods.current().await.map_err(|error| failed(&error))?;
        let coordinators = pods.iter().filter(|pod| pod.component == Component::Coordinator);
        Ok(coordinators.filter(|pod| pod.is_ready).map(Pod::address).collect())
    }
}

impl std::fmt::Debug for KubeNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KubeNetwork")
    }
}

fn failed(error: &Error) -> io::Error {
    let kind = match error {
        Error::Forbidden { .. } => io::ErrorKind::PermissionDenied,
        Error::Silent { .. } => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, with_causes(error))
}

//! One forwarded stream.

use std::future;
use std::io;

use dfs_transport::Io;
use kube::api::Portforwarder;

/// Returns the stream to a port of a pod. An error at the pod that the API server reports ends it
/// with that error. Dropping it ends the forwarding.
pub(crate) fn stream(mut forwarder: Portforwarder, port: u16, pod: &str) -> Option<Io> {
    let stream = forwarder.take_stream(port)?;
    let trouble = forwarder.take_error(port)?;
    let (forwarding, pod) = (Forwarding(forwarder), pod.to_owned());
    Some(Io::new(stream).until(async move {
        let _forwarding = forwarding;
        match trouble.await {
            Some(trouble) => {
                let message = format!("pod {pod}: {}", trouble.trim());
                io::Error::new(io::ErrorKind::ConnectionReset, message)
            }
            None => future::pending().await,
        }
    }))
}

struct Forwarding(Portforwarder);

impl Drop for Forwarding {
    fn drop(&mut self) {
        // Otherwise it would wait for the other end indefinitely.
        self.0.abort();
    }
}

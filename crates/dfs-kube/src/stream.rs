//! One forwarded stream.

use std::future;
use std::io;

use dfs_transport::Io;
use kube::api::Portforwarder;

/// The stream to a port of a pod. What the API server says went wrong at the pod ends it, with
/// that as the error. Dropping it ends the forwarding.
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
        // It would wait for the other end for as long as that likes.
        self.0.abort();
    }
}

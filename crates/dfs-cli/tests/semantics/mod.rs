//! The guarantees of SEMANTICS.md, by number, against real processes.

mod administration;
mod bounds;
mod durability;
mod integrity;
mod names;
mod raw;
mod rejoining;
mod scrubbing;
mod strangers;
mod visibility;

use std::sync::Arc;
use std::time::Duration;

use dfs_client::{Client, PutOptions, PutSource};
use dfs_testkit::process::{Cluster, Settings};
use dfs_types::{Attributes, DfsPath, FileTime};

use crate::support::binary;

/// Returns a client of a cluster; tests do not share clients.
pub(crate) fn client(cluster: &Cluster) -> Client {
    client_on(cluster, "")
}

/// Returns a client that claims to run on this machine.
fn client_on(cluster: &Cluster, machine: &str) -> Client {
    let builder = Client::builder().coordinator(cluster.coordinator_url());
    builder.location(machine, "").connect_lazy().unwrap()
}

fn path(text: &str) -> DfsPath {
    DfsPath::new(text.as_bytes().to_vec()).unwrap()
}

pub(crate) async fn put(
    client: &Client,
    at: &str,
    bytes: Vec<u8>,
) -> Result<(), dfs_client::Error> {
    client.put(&path(at), PutSource::bytes(bytes), PutOptions::default()).await.map(drop)
}

/// Reads a complete file.
pub(crate) async fn read(client: &Client, at: &str) -> Result<Vec<u8>, dfs_client::Error> {
    let mut reader = client.get(&path(at), dfs_client::GetOptions::default()).await?;
    let mut bytes = Vec::new();
    while let Some(part) = reader.next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

fn attributes() -> Attributes {
    Attributes { mode: 0o755, uid: 0, gid: 0, mtime: FileTime::new(1_000_000, 5).unwrap() }
}

/// Starts three datanodes; deleted and replaced files are restorable only for this long.
fn forgetful(restorable: Duration) -> Cluster {
    let Settings { coordinator, .. } = Settings::default();
    let coordinator = format!("{coordinator}restorable_ms: {}\n", restorable.as_millis());
    Cluster::start(binary(), Settings { coordinator, ..Settings::default() })
}

/// Returns the number of verified replicas of a file, as found by `dfs explain`: the minimum over
/// its chunks.
pub(crate) fn verified_replicas(cluster: &Cluster, at: &str) -> usize {
    let output = cluster.dfs(["explain", "--verify", "--json", at]);
    let explained: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let good = |chunk: &serde_json::Value| {
        let replicas = chunk["replicas"].as_array().unwrap();
        replicas.iter().filter(|replica| replica["verified"] == true).count()
    };
    explained["chunks"].as_array().unwrap().iter().map(good).min().unwrap()
}

/// Spawns a future as a task named after its work.
fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

/// Returns a name that many tasks share.
fn shared(text: &str) -> Arc<str> {
    Arc::from(text)
}

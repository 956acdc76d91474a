//! Copies a local directory into the cluster, prints the result of each entry, and sums it up.
//!
//! ```text
//! cargo run -p dfs-client --example copy_tree -- http://127.0.0.1:7070 ./src /src
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_client::{ByteSize, Client, Copied, DfsPath, Error, OnError, TreeObserver, TreeOptions};
use futures_util::TryStreamExt as _;

/// Prints each entry, and continues after errors.
struct Printer;

impl TreeObserver for Printer {
    fn copied(&self, entry: &Copied<'_>) {
        println!("{} -> {}", entry.local.display(), entry.path);
    }

    fn skipped(&self, path: &Path, what: &'static str) {
        println!("{} is a {what}", path.display());
    }

    fn failed(&self, error: &Error) -> OnError {
        eprintln!("{error}");
        OnError::Continue
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [coordinator, local, path] = args.as_slice() else {
        return Err("usage: copy_tree COORDINATOR LOCAL-DIRECTORY PATH".into());
    };
    let client = Client::builder().coordinator(coordinator).connect_lazy()?;
    let path = DfsPath::new(path.clone())?;

    let options = TreeOptions::default().parallel(8).observer(Arc::new(Printer));
    let report = client.put_tree([(PathBuf::from(local), path.clone())], options).await?;
    println!("files copied: {}, entries failed: {}", report.files, report.failed);

    let mut usage = client.du(&path);
    while let Some(directory) = usage.try_next().await? {
        println!("{:>10} {}", ByteSize(directory.bytes).to_string(), directory.path);
    }
    Ok(())
}

//! Puts a file, reads it back in several ways, and deletes it.
//!
//! ```text
//! dfs local --data-dir /tmp/dfs &
//! cargo run -p dfs-client --example put_and_get -- http://127.0.0.1:7070
//! ```

use std::io::SeekFrom;

use dfs_client::{Client, DeleteOptions, DfsPath, Follow, GetOptions, PutOptions, PutSource};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let coordinator = std::env::args().nth(1);
    let coordinator = coordinator.unwrap_or_else(|| "http://127.0.0.1:7070".to_owned());
    let client = Client::builder().coordinator(coordinator).connect_lazy()?;
    let path = DfsPath::new("/example.txt")?;

    // All at once. When this returns, the bytes are on the disks of enough nodes.
    let text = "The quick brown fox jumps over the lazy dog.\n";
    client.put(&path, PutSource::bytes(text), PutOptions::default()).await?;
    println!("{path} has {} bytes", client.stat(&path, Follow::Yes).await?.size);

    // Incrementally. Nothing is replaced until `finish` returns; dropping the upload aborts it.
    let mut upload = client.create(&path, PutOptions::default().chunk_size(1 << 20)).await?;
    for line in 0..100_000 {
        upload.write(format!("line {line}\n")).await?;
    }
    let stat = upload.finish().await?;
    println!("{path} has {} bytes now", stat.size);

    // As an `AsyncRead` that can seek.
    let mut reader = client.get(&path, GetOptions::default()).await?;
    reader.seek(SeekFrom::End(-11)).await?;
    let mut last = String::new();
    reader.read_to_string(&mut last).await?;
    print!("its end: {last}");

    client.delete(&path, DeleteOptions::default()).await?;
    Ok(())
}

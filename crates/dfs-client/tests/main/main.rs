//! The client against a fake cluster, over a network within this process. Time is paused: it
//! advances when all tasks are idle, so that no test waits or depends on speed.

// `cfg(test)` always holds; it makes clippy treat helpers as tests too.
#[cfg(test)]
mod calls;
#[cfg(test)]
mod cancelling;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod failing_over;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod relaying;
#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod trees;
#[cfg(test)]
mod uploads;
#[cfg(test)]
mod writing;

#[cfg(test)]
use helpers::*;

#[cfg(test)]
mod helpers {
    use bytes::Bytes;
    use dfs_client::{Client, Error, FileReader, GetOptions, PutOptions, PutSource};
    use dfs_types::{DfsPath, Random as _, SeededRandom};

    pub(crate) fn path(text: &str) -> DfsPath {
        DfsPath::new(text.as_bytes().to_vec()).unwrap()
    }

    /// Returns bytes that differ at any two offsets.
    pub(crate) fn bytes(length: u64) -> Bytes {
        let mut bytes = vec![0; length as usize];
        SeededRandom::new(length).fill(&mut bytes);
        bytes.into()
    }

    pub(crate) async fn put(client: &Client, name: &str, content: &Bytes) {
        let source = PutSource::bytes(content.clone());
        client.put(&path(name), source, PutOptions::default()).await.unwrap();
    }

    /// Reads to the end.
    pub(crate) async fn drain(mut reader: FileReader) -> Result<Bytes, Error> {
        let mut content = Vec::new();
        while let Some(bytes) = reader.next().await? {
            content.extend_from_slice(&bytes);
        }
        Ok(content.into())
    }

    pub(crate) async fn get(client: &Client, name: &str) -> Result<Bytes, Error> {
        drain(client.get(&path(name), GetOptions::default()).await?).await
    }

    /// Waits until a condition holds, up to a deadline in paused time.
    pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(10);
        while !condition() {
            assert!(tokio::time::Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

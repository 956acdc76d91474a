//! Puts a whole file in one call.

use std::sync::Arc;

use dfs_streamer::ChunkBytes;
use dfs_types::DfsPath;

use crate::local::{self, LocalContent};
use crate::source::{FileChunk, Kind};
use crate::upload::Upload;
use crate::{Client, Error, FileStat, PutOptions, PutSource};

impl Client {
    /// Puts a file under `path`, replacing an existing one. When this returns `Ok`, every chunk is
    /// durable on enough nodes, and so is the name. After an error nothing has changed, unless
    /// [`Error::is_outcome_unknown`]. Dropping the future aborts the upload, like dropping an
    /// [`Upload`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// use dfs_client::{Precondition, DfsPath, ErrorCode, PutOptions, PutSource};
    ///
    /// let path = DfsPath::new("/greeting")?;
    /// let stat = client.put(&path, PutSource::bytes("hello"), PutOptions::default()).await?;
    /// assert_eq!(stat.size, 5);
    ///
    /// let only_new = PutOptions::default().precondition(Precondition::Absent);
    /// let refused = client.put(&path, PutSource::bytes("bye"), only_new).await.unwrap_err();
    /// assert_eq!(refused.code(), ErrorCode::AlreadyExists);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put(
        &self,
        path: &DfsPath,
        source: PutSource,
        options: PutOptions,
    ) -> Result<FileStat, Error> {
        self.with_request_id(Box::pin(self.put_source(path, source, options))).await
    }

    async fn put_source(
        &self,
        path: &DfsPath,
        source: PutSource,
        options: PutOptions,
    ) -> Result<FileStat, Error> {
        let local = match source.0 {
            Kind::Bytes(bytes) => return self.put_bytes(path, bytes, options).await,
            Kind::Reader(reader) => {
                let mut upload = Upload::start(self, path, None, options).await?;
                upload.write_from(reader).await?;
                return upload.finish().await;
            }
            Kind::File(local) => local,
        };
        let opened = local.clone();
        match local::blocking(move || LocalContent::open(&opened)).await? {
            LocalContent::Small(bytes) => self.put_bytes(path, bytes, options).await,
            LocalContent::Regular { file, fingerprint } => {
                let file = Arc::new(file);
                let cut = |offset, length| -> Arc<dyn ChunkBytes> {
                    Arc::new(FileChunk { file: file.clone(), offset, length })
                };
                let size = fingerprint.size;
                let mut upload = Upload::start(self, path, Some(size), options).await?;
                let written = upload.write_cut(size, cut).await;
                let written = match written {
                    Ok(()) => upload.all_durable().await,
                    Err(error) => Err(error),
                };
                // A changed source is the cause of any other failure.
                local::check_unchanged(&local, &file, fingerprint)?;
                written?;
                upload.finish().await
            }
            LocalContent::Stream(file) => {
                let file = Arc::new(file);
                let mut upload = Upload::start(self, path, None, options).await?;
                loop {
                    let (file, shown) = (file.clone(), local.clone());
                    let bytes = local::blocking(move || local::read_some(&file, &shown)).await?;
                    if bytes.is_empty() {
                        break;
                    }
                    upload.write(bytes).await?;
                }
                upload.finish().await
            }
        }
    }

    async fn put_bytes(
        &self,
        path: &DfsPath,
        bytes: bytes::Bytes,
        options: PutOptions,
    ) -> Result<FileStat, Error> {
        let size = bytes.len() as u64;
        let cut = |offset: u64, length: u64| -> Arc<dyn ChunkBytes> {
            Arc::new(bytes.slice(offset as usize..(offset + length) as usize))
        };
        let mut upload = Upload::start(self, path, Some(size), options).await?;
        upload.write_cut(size, cut).await?;
        upload.finish().await
    }
}

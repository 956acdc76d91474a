//! Reads a file into a local one, pieces in parallel.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use dfs_types::{Crc32c, ErrorCode};
use tokio::task::{JoinError, JoinSet};

use crate::chunk_checksum::WholeChunks;
use crate::local::failure;
use crate::pieces::{Piece, Pieces};
use crate::reader::AHEAD_MAX;
use crate::replica_read::Run;
use crate::{Client, Error, FileStat, GetOptions, Target};

impl Client {
    /// Reads a file into a local one, pieces in parallel, each at its own place: the byte at
    /// `options.offset` comes first. The local file must be regular and should be empty; it is not
    /// synced.
    pub async fn get_to_file(
        &self,
        file: impl Into<Target>,
        options: GetOptions,
        local: File,
    ) -> Result<FileStat, Error> {
        let file = file.into();
        let writing = self.write_to_file(&file, options, Arc::new(local), None);
        self.with_request_id(writing).await
    }

    /// Like [`Client::get_to_file`], for a local file whose path errors can name.
    pub(crate) async fn get_to_path(
        &self,
        file: impl Into<Target>,
        options: GetOptions,
        local: File,
        path: &Path,
    ) -> Result<FileStat, Error> {
        let file = file.into();
        let writing = self.write_to_file(&file, options, Arc::new(local), Some(path));
        self.with_request_id(writing).await
    }

    async fn write_to_file(
        &self,
        target: &Target,
        options: GetOptions,
        file: Arc<File>,
        path: Option<&Path>,
    ) -> Result<FileStat, Error> {
        let path: Arc<Path> = path.unwrap_or_else(|| Path::new("the local file")).into();
        let context: Arc<str> = target.to_string().into();
        let start = options.offset;
        let mut pieces = Pieces::open(self, target, start, options.length).await?;
        let stat = pieces.layout.stat.clone();
        let mut chunks = WholeChunks::default();
        let mut running: JoinSet<Result<(Piece, Option<Crc32c>), Error>> = JoinSet::new();
        let mut take = |ended: Option<Result<Result<_, Error>, JoinError>>| {
            let Some(ended) = ended else { return Ok(()) };
            let failed =
                |error: JoinError| Error::new(ErrorCode::Internal, "get", error.to_string());
            let (piece, crc) = ended.map_err(failed)??;
            chunks.add(&context, &piece, crc)?;
            if let Some(progress) = &options.progress {
                progress(piece.length);
            }
            Ok::<_, Error>(())
        };
        while let Some(piece) = pieces.next(self).await? {
            while running.len() >= AHEAD_MAX {
                take(running.join_next().await)?;
            }
            let share = loop {
                tokio::select! {
                    biased;
                    Some(ended) = running.join_next() => take(Some(ended))?,
                    share = self.inner.budget.take(piece.length) => break share,
                }
            };
            let (client, context, file) = (self.clone(), context.clone(), file.clone());
            let path = path.clone();
            let inode = stat.inode;
            running.spawn(self.in_request(async move {
                let _share = share;
                let mut at = piece.file_offset() - start;
                let Run { bytes, crc, .. } = client.fetch(&context, inode, piece.clone()).await?;
                let writing = tokio::task::spawn_blocking(move || {
                    for bytes in bytes {
                        file.write_all_at(&bytes, at)?;
                        at += bytes.len() as u64;
                    }
                    std::io::Result::Ok(())
                });
                let written = writing.await.unwrap_or_else(|error| Err(error.into()));
                written.map_err(|error| failure("write", &path, &error))?;
                Ok((piece, crc))
            }));
        }
        while !running.is_empty() {
            take(running.join_next().await)?;
        }
        Ok(stat)
    }
}

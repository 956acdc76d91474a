//! Getting a file: pieces in parallel and ahead of the reader, within the memory budget.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::vec;

use bytes::{Bytes, BytesMut};
use dfs_transport::{current_request_id, with_request_id};
use dfs_types::{Crc32c, DfsPath, ErrorCode, RequestId};
use tokio::task::{JoinHandle, JoinSet};

use crate::budget::Share;
use crate::pieces::{Piece, Pieces};
use crate::replica_read::Run;
use crate::whole::WholeChunks;
use crate::{Client, Error, FileStat, GetOptions, ProgressObserver};

/// Pieces under way for one reader at most.
const AHEAD_MAX: usize = 8;
/// Bytes that [`Client::read_range`] gives at most.
const RANGE_MAX: u64 = 64 << 20;

/// A piece that was fetched, with its part of the memory budget.
type Fetched = (Piece, Run, Share);

/// Gives the bytes of a file in order, as they come; some pieces are fetched ahead. What is read
/// is one version of the file, also when it is replaced meanwhile; [`ErrorCode::Stale`] when that
/// happened so long ago that its bytes are gone. Dropping it ends what is under way.
pub struct FileReader {
    client: Client,
    context: String,
    pieces: Pieces,
    /// What is left of the piece that is given out. It counts as the caller's, not as a part of
    /// the budget: a reader that stands still starves no other.
    current: vec::IntoIter<Bytes>,
    ahead: VecDeque<Fetching>,
    chunks: WholeChunks,
    progress: Option<ProgressObserver>,
    request_id: RequestId,
}

/// A piece under way; ends with its reader.
struct Fetching(JoinHandle<Result<Fetched, Error>>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FileReader {
    /// The file as it was when it was opened.
    pub fn stat(&self) -> &FileStat {
        &self.pieces.layout.stat
    }

    /// The next bytes, at most 1 MiB; `None` at the end. After an error the reader is of no
    /// further use. Cancel-safe: what was fetched is given to the next call.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let id = self.request_id;
        with_request_id(id, self.next_run()).await
    }

    async fn next_run(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(bytes) = self.current.next() {
                if let Some(progress) = &self.progress {
                    progress(bytes.len() as u64);
                }
                return Ok(Some(bytes));
            }
            self.fetch_ahead().await?;
            let Some(first) = self.ahead.front_mut() else { return Ok(None) };
            let ended = (&mut first.0).await;
            self.ahead.pop_front();
            let ended = ended.map_err(|error| {
                Error::new(ErrorCode::Internal, self.context.as_str(), error.to_string())
            })?;
            let (piece, run, _share) = ended?;
            self.chunks.add(&self.context, &piece, run.crc)?;
            self.current = run.bytes.into_iter();
        }
    }

    /// Starts pieces while there is room for them; the first one waits for it.
    async fn fetch_ahead(&mut self) -> Result<(), Error> {
        while self.ahead.len() < AHEAD_MAX {
            let cost = Piece::MAX.min(self.stat().size.max(1));
            let budget = &self.client.inner.budget;
            let share = if self.ahead.is_empty() {
                budget.take(cost).await
            } else {
                let Some(share) = budget.try_take_ahead(cost) else { return Ok(()) };
                share
            };
            let Some(piece) = self.pieces.next(&self.client).await? else { return Ok(()) };
            let (client, context) = (self.client.clone(), self.context.clone());
            let inode = self.stat().inode;
            let fetching = tokio::spawn(self.client.in_request(async move {
                let run = client.fetch(&context, inode, piece.clone()).await?;
                Ok((piece, run, share))
            }));
            self.ahead.push_back(Fetching(fetching));
        }
        Ok(())
    }
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("file", &self.context).finish_non_exhaustive()
    }
}

impl Client {
    /// Opens a file to be read in order.
    ///
    /// ```
    /// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/fake/mod.rs")); }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = fake::Cluster::start(3).await;
    /// # let client = cluster.client();
    /// use dfs_client::{GetOptions};
    /// # use dfs_client::{PutOptions, PutSource};
    /// use dfs_types::DfsPath;
    ///
    /// # let path = DfsPath::new("/songs")?;
    /// # client.put(&path, PutSource::bytes("la la la"), PutOptions::default()).await?;
    /// let mut reader = client.get(&path, GetOptions::default()).await?;
    /// assert_eq!(reader.stat().size, 8);
    /// let mut content = Vec::new();
    /// while let Some(bytes) = reader.next().await? {
    ///     content.extend_from_slice(&bytes);
    /// }
    /// assert_eq!(content, b"la la la");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, path: &DfsPath, options: GetOptions) -> Result<FileReader, Error> {
        let id = current_request_id();
        let request_id = id.unwrap_or_else(|| RequestId::random(self.inner.random.as_ref()));
        let opening = Pieces::open(self, path, options.offset, options.length);
        let pieces = with_request_id(request_id, opening).await?;
        Ok(FileReader {
            client: self.clone(),
            context: path.to_string(),
            pieces,
            current: Vec::new().into_iter(),
            ahead: VecDeque::new(),
            chunks: WholeChunks::default(),
            progress: options.progress,
            request_id,
        })
    }

    /// Reads `length` bytes from `offset` on, fewer where the file ends; at most 64 MiB.
    ///
    /// ```
    /// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/fake/mod.rs")); }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = fake::Cluster::start(3).await;
    /// # let client = cluster.client();
    /// # use dfs_client::{PutOptions, PutSource};
    /// use dfs_types::DfsPath;
    ///
    /// # let path = DfsPath::new("/songs")?;
    /// # client.put(&path, PutSource::bytes("la la la"), PutOptions::default()).await?;
    /// assert_eq!(client.read_range(&path, 3, 2).await?, "la");
    /// assert_eq!(client.read_range(&path, 6, 99).await?, "la");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_range(
        &self,
        path: &DfsPath,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, Error> {
        let length = Some(length.min(RANGE_MAX));
        let options = GetOptions::default().offset(offset).length(length);
        let mut reader = self.get(path, options).await?;
        let Some(first) = reader.next().await? else { return Ok(Bytes::new()) };
        let Some(second) = reader.next().await? else { return Ok(first) };
        let mut bytes = BytesMut::from(&first[..]);
        bytes.extend_from_slice(&second);
        while let Some(more) = reader.next().await? {
            bytes.extend_from_slice(&more);
        }
        Ok(bytes.freeze())
    }

    /// Writes a file into a local one, pieces in parallel, each at its place: the byte at
    /// `options.offset` comes first. The local file should be empty; it is not synced.
    pub async fn get_to_file(
        &self,
        path: &DfsPath,
        options: GetOptions,
        file: File,
    ) -> Result<FileStat, Error> {
        self.with_request_id(self.write_to_file(path, options, Arc::new(file))).await
    }

    async fn write_to_file(
        &self,
        path: &DfsPath,
        options: GetOptions,
        file: Arc<File>,
    ) -> Result<FileStat, Error> {
        let context: Arc<str> = path.to_string().into();
        let start = options.offset;
        let mut pieces = Pieces::open(self, path, start, options.length).await?;
        let stat = pieces.layout.stat.clone();
        let mut chunks = WholeChunks::default();
        let mut running: JoinSet<Result<(Piece, Option<Crc32c>), Error>> = JoinSet::new();
        let mut take = |ended: Option<Result<Result<_, Error>, tokio::task::JoinError>>| {
            let Some(ended) = ended else { return Ok(()) };
            let failed = |error: tokio::task::JoinError| {
                Error::new(ErrorCode::Internal, "get", error.to_string())
            };
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
            let inode = stat.inode;
            running.spawn(self.in_request(async move {
                let _share = share;
                let mut at = piece.file_offset() - start;
                let Run { bytes, crc } = client.fetch(&context, inode, piece.clone()).await?;
                let writing = tokio::task::spawn_blocking(move || {
                    for bytes in bytes {
                        file.write_all_at(&bytes, at)?;
                        at += bytes.len() as u64;
                    }
                    Ok(())
                });
                let written = writing.await.unwrap_or_else(|error| Err(error.into()));
                written.map_err(|error| local(&error))?;
                Ok((piece, crc))
            }));
        }
        while !running.is_empty() {
            take(running.join_next().await)?;
        }
        Ok(stat)
    }
}

fn local(error: &std::io::Error) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
        std::io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        _ => ErrorCode::Internal,
    };
    Error::new(code, "the local file", error.to_string())
}

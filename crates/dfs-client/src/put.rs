//! Putting a file: chunks in parallel, within the memory budget.

use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dfs_streamer::ChunkBytes;
use dfs_types::{CHUNK_SIZE_MIN, DfsPath, ErrorCode};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::budget::Share;
use crate::chunk_upload::ChunkUpload;
use crate::commit::{AbortOnDrop, CHUNKS_PER_CALL, TOKENS_PER_CALL, tokens_of};
use crate::source::{FileChunk, Fingerprint, Kind};
use crate::upload::{PlannedChunk, Upload, WrittenChunk};
use crate::{Client, Error, FileStat, ProgressObserver, PutOptions, PutSource};

/// Bytes that a chunk under way holds here: the window, and frames on both sides of it.
const BYTES_PER_CHUNK: u64 = 6 << 20;
/// Bytes of a chunk of a source that cannot be read twice.
const STREAM_CHUNK: u64 = 8 << 20;
/// How often an upload is staged, if nothing else makes it so: its plan lasts an hour.
const STAGE_AFTER: Duration = Duration::from_mins(10);

impl Client {
    /// Puts a file under `path`, replacing one that is there. When this returns `Ok` every chunk
    /// is durable on enough nodes, and so is the name. On an error nothing has changed, unless
    /// [`Error::is_outcome_unknown`]. Dropping the future gives the upload up; if that happens
    /// while the last call is under way, the file may have appeared.
    ///
    /// ```
    /// # mod fake { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/main/fake/mod.rs")); }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = fake::Cluster::start(3).await;
    /// # let client = cluster.client();
    /// use dfs_client::{PutOptions, PutSource};
    /// use dfs_types::DfsPath;
    ///
    /// let path = DfsPath::new("/greeting")?;
    /// let stat = client.put(&path, PutSource::bytes("hello"), PutOptions::default()).await?;
    /// assert_eq!(stat.size, 5);
    ///
    /// let only_new = PutOptions::default().create_only(true);
    /// let refused = client.put(&path, PutSource::bytes("bye"), only_new).await.unwrap_err();
    /// assert_eq!(refused.code(), dfs_types::ErrorCode::AlreadyExists);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put(
        &self,
        path: &DfsPath,
        source: PutSource,
        options: PutOptions,
    ) -> Result<FileStat, Error> {
        self.with_request_id(async {
            match source.0 {
                Kind::Bytes(bytes) => {
                    let size = bytes.len() as u64;
                    let cut = |offset: u64, length: u64| -> Arc<dyn ChunkBytes> {
                        Arc::new(bytes.slice(offset as usize..(offset + length) as usize))
                    };
                    self.put_known(path, size, cut, options, || Ok(())).await
                }
                Kind::File(local) => {
                    let failed = |error: std::io::Error| {
                        let code = match error.kind() {
                            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
                            std::io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
                            _ => ErrorCode::InvalidArgument,
                        };
                        Error::new(code, local.display().to_string(), error.to_string())
                    };
                    let file = Arc::new(File::open(&local).map_err(failed)?);
                    let before = Fingerprint::of(&file).map_err(failed)?;
                    let cut = |offset, length| -> Arc<dyn ChunkBytes> {
                        Arc::new(FileChunk { file: file.clone(), offset, length })
                    };
                    let check = || {
                        if Fingerprint::of(&file).map_err(failed)? == before {
                            return Ok(());
                        }
                        let message = "it changed while it was put; nothing was stored, try again";
                        Err(Error::new(ErrorCode::Conflict, local.display().to_string(), message))
                    };
                    self.put_known(path, before.size, cut, options, check).await
                }
                Kind::Reader(reader) => self.put_stream(path, reader, options).await,
            }
        })
        .await
    }

    async fn put_known(
        &self,
        path: &DfsPath,
        size: u64,
        cut: impl Fn(u64, u64) -> Arc<dyn ChunkBytes>,
        options: PutOptions,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Result<FileStat, Error> {
        let chunk_size = options.chunk_size;
        let mut upload = Upload::start(self, path, Some(size), &options, chunk_size).await?;
        let written = self.write_known(&mut upload, size, cut, &options).await;
        // A source that has changed is the reason for whatever else went wrong.
        check()?;
        self.end(upload, written?, size, &options).await
    }

    async fn write_known(
        &self,
        upload: &mut Upload,
        size: u64,
        cut: impl Fn(u64, u64) -> Arc<dyn ChunkBytes>,
        options: &PutOptions,
    ) -> Result<Written, Error> {
        let mut writing = Writing::new(self, upload, options.progress.clone());
        while let Some(chunk) = upload.next_chunk(self, false).await? {
            let length = chunk.max_length.min(size.saturating_sub(chunk.file_offset));
            if length == 0 {
                break;
            }
            let bytes = cut(chunk.file_offset, length);
            let room = self.inner.budget.take(BYTES_PER_CHUNK.min(length));
            let share = writing.meanwhile(upload, room).await?;
            writing.add(upload, chunk, bytes, share).await?;
        }
        writing.finish(upload).await
    }

    async fn put_stream(
        &self,
        path: &DfsPath,
        mut reader: Pin<Box<dyn AsyncRead + Send>>,
        options: PutOptions,
    ) -> Result<FileStat, Error> {
        let limit = self.inner.budget.gathered_max().min(STREAM_CHUNK);
        let limit = limit / CHUNK_SIZE_MIN * CHUNK_SIZE_MIN;
        let chunk_size = options.chunk_size.unwrap_or(limit).min(limit);
        let mut upload = Upload::start(self, path, None, &options, Some(chunk_size)).await?;
        let mut writing = Writing::new(self, &upload, options.progress.clone());
        let mut size = 0;
        loop {
            let room = self.inner.budget.take_to_gather(chunk_size);
            let share = writing.meanwhile(&upload, room).await?;
            let gathering = read_chunk(&mut reader, chunk_size as usize);
            let bytes = writing.meanwhile(&upload, gathering).await?.map_err(|error| {
                Error::new(ErrorCode::Internal, "the stream to be put", error.to_string())
            })?;
            let length = bytes.len() as u64;
            if length == 0 {
                break;
            }
            let chunk = upload.next_chunk(self, true).await?.ok_or_else(|| {
                Error::new(ErrorCode::Internal, path.to_string(), "the plan ended early")
            })?;
            size += length;
            writing.add(&upload, chunk, Arc::new(bytes), share.gathered()).await?;
            if length < chunk_size {
                break;
            }
        }
        let written = writing.finish(&upload).await?;
        self.end(upload, written, size, &options).await
    }

    async fn end(
        &self,
        upload: Upload,
        written: Written,
        size: u64,
        options: &PutOptions,
    ) -> Result<FileStat, Error> {
        let stat = self.confirm(&upload, &written.chunks, size, options).await;
        if stat.is_ok() || stat.as_ref().is_err_and(Error::is_outcome_unknown) {
            written.guard.disarm();
        }
        stat
    }
}

async fn read_chunk(
    reader: &mut Pin<Box<dyn AsyncRead + Send>>,
    length: usize,
) -> std::io::Result<Bytes> {
    let mut bytes = BytesMut::new();
    while bytes.len() < length {
        bytes.reserve((length - bytes.len()).min(1 << 20));
        let mut limited = (&mut *reader).take((length - bytes.len()) as u64);
        if limited.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(bytes.freeze())
}

/// Chunks that are written, and what gives the upload up if it is not confirmed.
struct Written {
    chunks: Vec<WrittenChunk>,
    guard: AbortOnDrop,
}

/// The chunks of one upload on their way.
struct Writing {
    client: Client,
    running: JoinSet<Result<WrittenChunk, Error>>,
    written: Vec<WrittenChunk>,
    staged: Instant,
    progress: Option<ProgressObserver>,
    guard: AbortOnDrop,
}

type Ended = Result<Result<WrittenChunk, Error>, JoinError>;

impl Writing {
    fn new(client: &Client, upload: &Upload, progress: Option<ProgressObserver>) -> Self {
        Self {
            client: client.clone(),
            running: JoinSet::new(),
            written: Vec::new(),
            staged: Instant::now(),
            progress,
            guard: AbortOnDrop::new(client, upload),
        }
    }

    /// Waits for `work`; meanwhile takes the chunks that end, and keeps the upload from expiring.
    async fn meanwhile<T>(
        &mut self,
        upload: &Upload,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => self.take(upload, ended).await?,
                done = &mut work => return Ok(done),
                () = sleep_until(self.staged + STAGE_AFTER) => self.stage(upload).await?,
            }
        }
    }

    /// Starts a chunk; its bytes keep their share of the budget until they are durable.
    async fn add(
        &mut self,
        upload: &Upload,
        chunk: PlannedChunk,
        bytes: Arc<dyn ChunkBytes>,
        share: Share,
    ) -> Result<(), Error> {
        while let Some(ended) = self.running.try_join_next() {
            self.take(upload, ended).await?;
        }
        let writer = ChunkUpload {
            client: self.client.clone(),
            path: upload.path.clone(),
            inode: upload.inode.0,
            min_replicas: upload.min_replicas,
            bytes,
            progress: self.progress.clone(),
        };
        self.running.spawn(self.client.in_request(async move {
            let _share = share;
            writer.write(chunk).await
        }));
        Ok(())
    }

    /// Takes a chunk that ended; stages when there are as many as one call can bring.
    async fn take(&mut self, upload: &Upload, ended: Ended) -> Result<(), Error> {
        let ended = ended.map_err(|error| {
            Error::new(ErrorCode::Internal, upload.path.to_string(), error.to_string())
        });
        self.written.push(ended??);
        // Each chunk that was planned anew has a token of its own.
        if self.written.len() >= CHUNKS_PER_CALL
            || tokens_of(upload, &self.written).len() >= TOKENS_PER_CALL
        {
            self.stage(upload).await?;
        }
        Ok(())
    }

    async fn stage(&mut self, upload: &Upload) -> Result<(), Error> {
        self.client.stage(upload, &self.written).await?;
        self.written.clear();
        self.staged = Instant::now();
        Ok(())
    }

    async fn finish(mut self, upload: &Upload) -> Result<Written, Error> {
        while !self.running.is_empty() {
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => self.take(upload, ended).await?,
                () = sleep_until(self.staged + STAGE_AFTER) => self.stage(upload).await?,
            }
        }
        Ok(Written { chunks: self.written, guard: self.guard })
    }
}

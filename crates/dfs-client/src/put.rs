//! Putting a file: chunks in parallel, within the memory budget.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dfs_proto::v1::data_node_client::DataNodeClient;
use dfs_proto::wire::WireId as _;
use dfs_proto::{Failure, v1, wire};
use dfs_streamer::grpc::GrpcLink;
use dfs_streamer::{ChunkBytes, FrameSource, Outcome, SenderConfig, chunk_source, send_chunk};
use dfs_types::{ChunkSeal, DfsPath, ErrorCode, Frame, NodeId, SessionId};
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::call::jittered;
use crate::commit::{AbortOnDrop, CHUNKS_PER_CALL};
use crate::source::{FileChunk, Fingerprint, Kind};
use crate::stats::count;
use crate::upload::{PlannedChunk, Upload, WrittenChunk};
use crate::{Client, Error, FileStat, ProgressObserver, PutOptions, PutSource};

/// Bytes that a chunk under way holds here: the window, and frames on both sides of it.
const BYTES_PER_CHUNK: u64 = 6 << 20;
/// Bytes of a chunk of a source that cannot be read twice.
const STREAM_CHUNK: u64 = 8 << 20;
/// How often a chunk is planned anew.
const REPLANS_MAX: usize = 8;
/// How long a prepare may take.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);
/// How long a datanode that is busy is waited for before the chunk goes elsewhere.
const BUSY_WITHIN: Duration = Duration::from_secs(15);
/// Chunks that were written this long ago are staged, as the plan of an upload lasts an hour.
const STAGE_AFTER: Duration = Duration::from_mins(10);

impl Client {
    /// Puts a file under `path`, replacing one that is there. When this returns `Ok` every chunk
    /// is durable on enough nodes, and so is the name. On an error nothing has changed, unless
    /// [`Error::is_outcome_unknown`]. Dropping the future gives the upload up; if that happens
    /// while the last call is under way, the file may have appeared.
    pub async fn put(
        &self,
        path: &DfsPath,
        source: PutSource,
        options: PutOptions,
    ) -> Result<FileStat, Error> {
        self.traced(async {
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
        let mut writing = Writing::new(self, &upload, options.progress.clone());
        while let Some(chunk) = upload.next_chunk(self, false).await? {
            let length = chunk.max_length.min(size.saturating_sub(chunk.file_offset));
            if length == 0 {
                break;
            }
            let cost = BYTES_PER_CHUNK.min(length);
            writing.add(&upload, chunk.clone(), cut(chunk.file_offset, length), cost).await?;
        }
        let written = writing.finish(&upload).await?;
        check()?;
        self.end(upload, written, size, &options).await
    }

    async fn put_stream(
        &self,
        path: &DfsPath,
        mut reader: std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>,
        options: PutOptions,
    ) -> Result<FileStat, Error> {
        // Never so large that a single chunk would take the whole budget.
        let limit =
            (self.inner.memory_budget as u64 / 2).min(STREAM_CHUNK) / (64 << 10) * (64 << 10);
        let chunk_size =
            options.chunk_size.map_or(limit, |size| if size <= limit { size } else { limit });
        let mut upload = Upload::start(self, path, None, &options, Some(chunk_size)).await?;
        let mut writing = Writing::new(self, &upload, options.progress.clone());
        let mut size = 0;
        loop {
            let permit = self.budget(chunk_size).await;
            let bytes = read_chunk(&mut reader, chunk_size as usize).await.map_err(|error| {
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
            writing.add_with(&upload, chunk, Arc::new(bytes), permit).await?;
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

    /// Waits for a part of the memory budget.
    pub(crate) async fn budget(&self, bytes: u64) -> OwnedSemaphorePermit {
        let permits = bytes.clamp(1, self.inner.memory_budget as u64) as u32;
        let acquired = self.inner.budget.clone().acquire_many_owned(permits).await;
        acquired.expect("the semaphore is never closed")
    }
}

async fn read_chunk(
    reader: &mut std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>,
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

    /// Starts a chunk as soon as the budget allows; meanwhile takes what has ended.
    async fn add(
        &mut self,
        upload: &Upload,
        chunk: PlannedChunk,
        bytes: Arc<dyn ChunkBytes>,
        cost: u64,
    ) -> Result<(), Error> {
        let permit = loop {
            let ended = tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => ended,
                permit = self.client.budget(cost) => break permit,
            };
            self.take(ended)?;
        };
        self.add_with(upload, chunk, bytes, permit).await
    }

    async fn add_with(
        &mut self,
        upload: &Upload,
        chunk: PlannedChunk,
        bytes: Arc<dyn ChunkBytes>,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), Error> {
        while let Some(ended) = self.running.try_join_next() {
            self.take(ended)?;
        }
        let is_old = self.staged.elapsed() >= STAGE_AFTER && !self.written.is_empty();
        if self.written.len() >= CHUNKS_PER_CALL || is_old {
            self.client.stage(upload, &self.written).await?;
            self.written.clear();
            self.staged = Instant::now();
        }
        let writer = ChunkUpload {
            client: self.client.clone(),
            path: upload.path.clone(),
            inode: upload.inode.0,
            min_copies: upload.min_copies,
            bytes,
            progress: self.progress.clone(),
        };
        let id = dfs_transport::current_request_id();
        self.running.spawn(async move {
            let _permit = permit;
            match id {
                Some(id) => dfs_transport::with_request_id(id, writer.write(chunk)).await,
                None => writer.write(chunk).await,
            }
        });
        Ok(())
    }

    fn take(
        &mut self,
        ended: Result<Result<WrittenChunk, Error>, tokio::task::JoinError>,
    ) -> Result<(), Error> {
        let ended =
            ended.map_err(|error| Error::new(ErrorCode::Internal, "put", error.to_string()))?;
        self.written.push(ended?);
        Ok(())
    }

    async fn finish(mut self, upload: &Upload) -> Result<Written, Error> {
        while let Some(ended) = self.running.join_next().await {
            self.take(ended)?;
        }
        while self.written.len() > CHUNKS_PER_CALL {
            let rest = self.written.split_off(CHUNKS_PER_CALL);
            self.client.stage(upload, &self.written).await?;
            self.written = rest;
        }
        Ok(Written { chunks: self.written, guard: self.guard })
    }
}

/// One chunk on its way, over as many plans as it takes.
struct ChunkUpload {
    client: Client,
    path: DfsPath,
    inode: u64,
    min_copies: u32,
    bytes: Arc<dyn ChunkBytes>,
    progress: Option<ProgressObserver>,
}

/// Why a plan of a chunk did not work, and which nodes to avoid in the next one.
struct Attempt {
    error: Error,
    avoid: Vec<NodeId>,
}

impl ChunkUpload {
    async fn write(self, mut chunk: PlannedChunk) -> Result<WrittenChunk, Error> {
        let mut avoid: Vec<NodeId> = Vec::new();
        let told = AtomicU64::new(0);
        for replans in 0.. {
            let attempt = match self.attempt(&chunk, &told).await {
                Ok(written) => return Ok(written),
                Err(attempt) => attempt,
            };
            let is_hopeless = matches!(
                attempt.error.code(),
                ErrorCode::WrongCluster | ErrorCode::InvalidArgument | ErrorCode::PermissionDenied
            );
            if replans >= REPLANS_MAX || is_hopeless {
                return Err(attempt.error);
            }
            for node in attempt.avoid {
                self.client.inner.penalties.add(node);
                if !avoid.contains(&node) {
                    avoid.push(node);
                }
            }
            tracing::info!(chunk = %chunk.id, error = %attempt.error, "planning a chunk anew");
            count(&self.client.inner.counters.replans);
            let context = self.path.to_string();
            chunk = match Upload::replan(&self.client, &context, &chunk, &avoid).await {
                Err(error) if error.code() == ErrorCode::NotEnoughNodes && !avoid.is_empty() => {
                    // The nodes to be avoided may be well again.
                    avoid.clear();
                    Upload::replan(&self.client, &context, &chunk, &avoid).await?
                }
                replanned => replanned?,
            };
        }
        unreachable!("the loop ends by returning")
    }

    async fn attempt(
        &self,
        chunk: &PlannedChunk,
        told: &AtomicU64,
    ) -> Result<WrittenChunk, Attempt> {
        let client = &self.client;
        let context = format!("{} chunk {} at {}", self.path, chunk.id, chunk.nodes[0].address);
        let primary = chunk.nodes[0].id;
        let failed = |code, message: String, avoid| Attempt {
            error: Error::new(code, context.clone(), message),
            avoid,
        };
        let ready = match self.prepare(chunk).await {
            Ok(ready) => ready,
            Err(failure) => return Err(failed(failure.code, failure.message, vec![primary])),
        };
        let session = wire::id::<SessionId>("session_id", &ready.session_id);
        let session =
            session.map_err(|e| failed(ErrorCode::Internal, e.to_string(), vec![primary]))?;
        let channel = client.inner.channels.bulk(&chunk.nodes[0].address, chunk.id.0 as u64);
        let channel =
            channel.map_err(|e| failed(ErrorCode::Internal, e.to_string(), vec![primary]))?;
        let link = GrpcLink::new(channel);
        let mut source =
            WithSeal { inner: chunk_source(self.bytes.clone(), client.inner.hashing), seal: None };
        let config = SenderConfig {
            window: client.inner.sender.window.min(ready.window.max(1)),
            ..client.inner.sender
        };
        let on_progress = |offset| {
            let before = told.fetch_max(offset, Ordering::Relaxed);
            if let (Some(progress), true) = (&self.progress, offset > before) {
                progress(offset - before);
            }
        };
        let random = client.inner.random.as_ref();
        let sent = send_chunk(&link, session, &mut source, &config, random, on_progress).await;
        let Outcome { receipts, dropped } =
            sent.map_err(|error| failed(error.code(), error.to_string(), vec![primary]))?;
        for replica in &dropped {
            tracing::warn!(chunk = %chunk.id, node = %replica.node, why = %replica.message, "a replica was dropped");
        }
        let seal = source.seal;
        let enough = receipts.len() >= self.min_copies as usize;
        match seal {
            Some(seal) if enough => Ok(WrittenChunk { planned: chunk.clone(), seal, receipts }),
            _ => {
                let avoid = dropped.iter().map(|replica| replica.node).collect();
                let message = format!("{} of {} copies were made", receipts.len(), self.min_copies);
                Err(failed(ErrorCode::NotEnoughNodes, message, avoid))
            }
        }
    }

    /// Opens the session at the primary. Waits for a while when the node is busy.
    async fn prepare(&self, chunk: &PlannedChunk) -> Result<v1::ChunkUploadReady, Failure> {
        let client = &self.client;
        let meta = v1::ChunkMeta {
            cluster_id: Bytes::new(),
            chunk_id: chunk.id.to_wire(),
            max_length: chunk.max_length.min(self.bytes.length().next_multiple_of(64 << 10)),
            inode: self.inode,
            path: self.path.to_bytes(),
            file_offset: chunk.file_offset,
            token: chunk.token.clone(),
            replicas: chunk.nodes[1..].iter().map(|node| node.wire.clone()).collect(),
            is_replica: false,
            min_copies: self.min_copies,
        };
        let address = &chunk.nodes[0].address;
        let started = Instant::now();
        loop {
            let channel = client.inner.channels.control(address);
            let channel = channel
                .map_err(|error| Failure::new(ErrorCode::InvalidArgument, error.to_string()))?;
            let mut node = DataNodeClient::new(channel);
            let failure =
                match timeout(PREPARE_WITHIN, node.prepare_chunk_upload(meta.clone())).await {
                    Ok(Ok(ready)) => return Ok(ready.into_inner()),
                    Ok(Err(status)) => Failure::from_status(&status),
                    Err(_) => Failure::new(ErrorCode::Unavailable, "no answer in time"),
                };
            if failure.code != ErrorCode::Busy || started.elapsed() > BUSY_WITHIN {
                return Err(failure);
            }
            let pause = failure.retry_after.unwrap_or(Duration::from_millis(50));
            tokio::time::sleep(jittered(pause, client.inner.random.as_ref())).await;
        }
    }
}

/// Remembers the seal that went by with the last frame.
struct WithSeal<S> {
    inner: S,
    seal: Option<ChunkSeal>,
}

#[async_trait]
impl<S: FrameSource> FrameSource for WithSeal<S> {
    async fn next(&mut self) -> Result<Option<Frame>, dfs_streamer::Error> {
        let frame = self.inner.next().await?;
        if let Some(seal) = frame.as_ref().and_then(|frame| frame.seal) {
            self.seal = Some(seal);
        }
        Ok(frame)
    }

    fn rewind(&mut self, offset: u64) -> Result<(), dfs_streamer::Error> {
        self.inner.rewind(offset)
    }

    fn acknowledge(&mut self, offset: u64) {
        self.inner.acknowledge(offset);
    }
}

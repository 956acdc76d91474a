//! Upload of a file: chunks in parallel, within the memory budget.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dfs_streamer::ChunkBytes;
use dfs_transport::{current_request_id, with_request_id};
use dfs_types::{CHUNK_SIZE_MIN, DfsPath, ErrorCode, RequestId, XattrName};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::chunk_upload::ChunkUpload;
use crate::commit::{CHUNKS_PER_CALL, TOKENS_PER_CALL, tokens_of};
use crate::in_progress::InProgressGuard;
use crate::memory_budget::Share;
use crate::plan::{PlannedChunk, UploadPlan, WrittenChunk};
use crate::{Client, Error, FileStat, PutOptions};

/// Memory of a chunk in flight in bytes: the window, and frames on both sides of it.
const BYTES_PER_CHUNK: u64 = 6 << 20;
/// Chunk length of a source that cannot be read twice.
const STREAM_CHUNK: u64 = 8 << 20;
/// Maximum time between two stagings; a plan expires after an hour.
const STAGE_AFTER: Duration = Duration::from_mins(10);
/// Time that an aborted upload waits for chunks in flight, whose replicas can be deleted only with
/// their receipts.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

/// A file being written; it appears under its name when [`Upload::finish`] returns.
///
/// Bytes are gathered into chunks of up to 8 MiB, which are sent in parallel while more are
/// written. [`Upload::write`] waits while the memory budget of the client is exhausted, which is
/// the back-pressure. A chunk being gathered holds its part of the budget, a quarter of which is
/// reserved for this purpose; write to several uploads from separate tasks, not in turns from one.
///
/// Dropping an upload aborts it in the background within a few seconds: nothing appears under its
/// name, and stored chunks are deleted. The exception is an upload dropped during `finish`, which
/// may have taken effect.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = dfs_fake::Cluster::start(3).await;
/// # let client = dfs_fake::client!(cluster);
/// use dfs_client::{DfsPath, PutOptions};
///
/// let path = DfsPath::new("/log")?;
/// let mut upload = client.create(&path, PutOptions::default()).await?;
/// for line in 0..3 {
///     upload.write(format!("line {line}\n")).await?;
/// }
/// let stat = upload.finish().await?;
/// assert_eq!(stat.size, 21);
///
/// let mut upload = client.create(&path, PutOptions::default()).await?;
/// upload.write("something else").await?;
/// upload.abort().await;
/// assert_eq!(client.read_range(&path, 0, 6).await?, "line 0");
/// # Ok(())
/// # }
/// ```
pub struct Upload {
    client: Client,
    options: PutOptions,
    request_id: RequestId,
    plan: UploadPlan,
    state: State,
    /// Bytes handed in.
    size: u64,
    /// Length of the chunks being gathered.
    chunk_size: u64,
    gathered: BytesMut,
    /// The budget's part of the chunk being gathered.
    room: Option<Share>,
    running: JoinSet<Result<WrittenChunk, Error>>,
    /// Durable, but not yet staged or confirmed.
    written: Vec<WrittenChunk>,
    staged_at: Instant,
    live: Option<InProgressGuard>,
}

/// State of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Accepting bytes.
    Open,
    /// A write failed or was dropped midway: the bytes have a hole.
    Broken,
    /// Nothing is left to abort.
    Ended,
}

type Ended = Result<Result<WrittenChunk, Error>, JoinError>;

impl Client {
    /// Starts to write a file under `path`, whose parent must exist. Until [`Upload::finish`],
    /// nothing appears there, and an existing file stays.
    pub async fn create(&self, path: &DfsPath, options: PutOptions) -> Result<Upload, Error> {
        self.with_request_id(Upload::start(self, path, None, options)).await
    }
}

impl Upload {
    /// Requests the first page of a plan. Without a size the chunk length fits the budget.
    pub(crate) async fn start(
        client: &Client,
        path: &DfsPath,
        size: Option<u64>,
        options: PutOptions,
    ) -> Result<Self, Error> {
        XattrName::check_all(&options.xattrs).map_err(|(name, error)| {
            let message = format!("{name}: {error}");
            Error::new(ErrorCode::InvalidArgument, path.to_string(), message)
        })?;
        let limit = client.inner.budget.gathered_max().min(STREAM_CHUNK);
        let limit = limit / CHUNK_SIZE_MIN * CHUNK_SIZE_MIN;
        let chunk_size = match size {
            None => Some(options.chunk_size.unwrap_or(limit).min(limit)),
            Some(_) => options.chunk_size,
        };
        let plan = UploadPlan::start(client, path, size, &options, chunk_size).await?;
        let id = current_request_id();
        Ok(Self {
            client: client.clone(),
            options,
            request_id: id.unwrap_or_else(|| RequestId::random(client.inner.random.as_ref())),
            plan,
            state: State::Open,
            size: 0,
            chunk_size: chunk_size.unwrap_or(limit),
            gathered: BytesMut::new(),
            room: None,
            running: JoinSet::new(),
            written: Vec::new(),
            staged_at: Instant::now(),
            live: Some(client.inner.in_progress.enter()),
        })
    }

    /// Returns the path that the file will have.
    pub fn path(&self) -> &DfsPath {
        &self.plan.path
    }

    /// Returns the number of bytes written so far. They are durable only once [`Upload::finish`]
    /// has returned.
    pub fn written(&self) -> u64 {
        self.size
    }

    /// Appends bytes. Waits while the memory budget is exhausted, and returns when they are
    /// gathered or in flight. An error, even of an earlier chunk, ends the upload.
    ///
    /// Not cancel-safe: after a dropped call every further one fails.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        let mut bytes = bytes.into();
        let id = self.request_id;
        self.begin()?;
        with_request_id(id, async {
            while !bytes.is_empty() {
                self.make_room().await?;
                let length = bytes.len().min(self.chunk_size as usize - self.gathered.len());
                let part = bytes.split_to(length);
                if self.gathered.is_empty() && length as u64 == self.chunk_size {
                    self.send_gathered(part).await?;
                    continue;
                }
                self.gathered.extend_from_slice(&part);
                self.send_if_full().await?;
            }
            Ok(())
        })
        .await?;
        self.state = State::Open;
        Ok(())
    }

    /// Makes the file appear, complete, replacing an older one. When this returns `Ok`, every chunk
    /// is durable on enough nodes, and so is the name. After an error nothing has changed, unless
    /// [`Error::is_outcome_unknown`].
    pub async fn finish(mut self) -> Result<FileStat, Error> {
        let id = self.request_id;
        with_request_id(id, self.end()).await
    }

    /// Aborts the upload: nothing appears, and stored chunks are deleted as far as coordinators can
    /// be reached within a few seconds; the rest is collected later.
    pub async fn abort(mut self) {
        if let Some(aborting) = self.abort_work() {
            aborting.await;
        }
    }

    /// Refuses to continue after a hole, and marks the upload as broken until the write succeeds.
    fn begin(&mut self) -> Result<(), Error> {
        if self.state != State::Open {
            let message = "an earlier write failed or was dropped";
            return Err(Error::new(ErrorCode::InvalidArgument, self.path().to_string(), message));
        }
        self.state = State::Broken;
        Ok(())
    }

    /// Appends everything that a reader returns.
    pub(crate) async fn write_from(
        &mut self,
        mut reader: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), Error> {
        self.begin()?;
        loop {
            self.make_room().await?;
            let mut gathered = mem::take(&mut self.gathered);
            let reading = read_some(&mut reader, &mut gathered, self.chunk_size as usize);
            let read = self.meanwhile(reading).await?;
            self.gathered = gathered;
            let length = read.map_err(|error| {
                Error::new(ErrorCode::Internal, "the stream to be put", error.to_string())
            })?;
            if length == 0 {
                break;
            }
            self.send_if_full().await?;
        }
        self.state = State::Open;
        Ok(())
    }

    /// Appends a source of this size that can be read more than once: its chunks are as long as the
    /// plan says, and their bytes are read while they are sent.
    pub(crate) async fn write_cut(
        &mut self,
        size: u64,
        cut: impl Fn(u64, u64) -> Arc<dyn ChunkBytes>,
    ) -> Result<(), Error> {
        self.begin()?;
        let client = self.client.clone();
        while let Some(chunk) = self.plan.next_chunk(&client, false).await? {
            let length = chunk.max_length.min(size.saturating_sub(chunk.file_offset));
            if length == 0 {
                break;
            }
            let bytes = cut(chunk.file_offset, length);
            let room = client.inner.budget.take(BYTES_PER_CHUNK.min(length));
            let share = self.meanwhile(room).await?;
            self.send(chunk, bytes, share).await?;
        }
        self.size = size;
        self.state = State::Open;
        Ok(())
    }

    /// Waits for the budget's part of the next chunk, unless already taken.
    async fn make_room(&mut self) -> Result<(), Error> {
        if self.room.is_none() {
            let client = self.client.clone();
            let share = self.meanwhile(client.inner.budget.take_to_gather(self.chunk_size)).await?;
            self.room = Some(share);
        }
        Ok(())
    }

    async fn send_if_full(&mut self) -> Result<(), Error> {
        if (self.gathered.len() as u64) < self.chunk_size {
            return Ok(());
        }
        let gathered = mem::take(&mut self.gathered).freeze();
        self.send_gathered(gathered).await
    }

    async fn send_gathered(&mut self, bytes: Bytes) -> Result<(), Error> {
        let client = self.client.clone();
        let chunk = self.plan.next_chunk(&client, true).await?.ok_or_else(|| {
            Error::new(ErrorCode::Internal, self.path().to_string(), "the plan ended early")
        })?;
        self.size += bytes.len() as u64;
        let share = self.room.take().expect("room was made before bytes were gathered");
        self.send(chunk, Arc::new(bytes), share.gathered()).await
    }

    /// Starts a chunk; its bytes keep their share of the budget until they are durable.
    async fn send(
        &mut self,
        chunk: PlannedChunk,
        bytes: Arc<dyn ChunkBytes>,
        share: Share,
    ) -> Result<(), Error> {
        while let Some(ended) = self.running.try_join_next() {
            self.take(ended).await?;
        }
        let writer = ChunkUpload {
            client: self.client.clone(),
            path: self.plan.path.clone(),
            inode: self.plan.inode.0,
            min_replicas: self.plan.min_replicas,
            bytes,
            progress: self.options.progress.clone(),
        };
        self.running.spawn(self.client.in_request(async move {
            let _share = share;
            writer.write(chunk).await
        }));
        Ok(())
    }

    /// Waits for `work`, meanwhile handling chunks that complete and keeping the upload from
    /// expiring.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => self.take(ended).await?,
                done = &mut work => return Ok(done),
                () = sleep_until(self.staged_at + STAGE_AFTER) => self.stage().await?,
            }
        }
    }

    /// Handles a completed chunk; stages when enough for one call are written.
    async fn take(&mut self, ended: Ended) -> Result<(), Error> {
        let ended = ended.map_err(|error| {
            Error::new(ErrorCode::Internal, self.path().to_string(), error.to_string())
        });
        self.written.push(ended??);
        // Each replanned chunk has its own token.
        if self.written.len() >= CHUNKS_PER_CALL
            || tokens_of(&self.plan, &self.written).len() >= TOKENS_PER_CALL
        {
            self.stage().await?;
        }
        Ok(())
    }

    async fn stage(&mut self) -> Result<(), Error> {
        self.client.stage(&self.plan, &self.written).await?;
        self.written.clear();
        self.staged_at = Instant::now();
        Ok(())
    }

    async fn end(&mut self) -> Result<FileStat, Error> {
        self.begin()?;
        self.all_durable().await?;
        let stat = self.client.confirm(&self.plan, &self.written, self.size, &self.options).await;
        if stat.is_ok() || stat.as_ref().is_err_and(Error::is_outcome_unknown) {
            self.state = State::Ended;
        }
        stat
    }

    /// Waits until everything written is durable.
    pub(crate) async fn all_durable(&mut self) -> Result<(), Error> {
        if !self.gathered.is_empty() {
            let gathered = mem::take(&mut self.gathered).freeze();
            self.send_gathered(gathered).await?;
        }
        self.room = None;
        while !self.running.is_empty() {
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => self.take(ended).await?,
                () = sleep_until(self.staged_at + STAGE_AFTER) => self.stage().await?,
            }
        }
        Ok(())
    }

    /// Returns the work that aborts the upload; `None` when nothing is left to abort.
    fn abort_work(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        if mem::replace(&mut self.state, State::Ended) == State::Ended {
            return None;
        }
        (self.gathered, self.room) = (BytesMut::new(), None);
        let (client, plan) = (self.client.clone(), self.plan.clone());
        let mut written = mem::take(&mut self.written);
        let mut running = mem::take(&mut self.running);
        let live = self.live.take();
        let aborting = async move {
            let settling = async {
                while let Some(ended) = running.join_next().await {
                    written.extend(ended.into_iter().flatten());
                }
            };
            drop(timeout(SETTLE_WITHIN, settling).await);
            running.abort_all();
            client.abort(&plan, &written).await;
            drop(live);
        };
        Some(with_request_id(self.request_id, aborting))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if let Some(aborting) = self.abort_work() {
            drop(runtime.spawn(aborting));
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("path", &self.plan.path)
            .field("written", &self.size)
            .finish_non_exhaustive()
    }
}

/// Reads until `length` bytes are gathered, or the end. Returns the number of bytes read.
async fn read_some(
    reader: &mut Pin<Box<dyn AsyncRead + Send>>,
    gathered: &mut BytesMut,
    length: usize,
) -> std::io::Result<usize> {
    let before = gathered.len();
    while gathered.len() < length {
        gathered.reserve((length - gathered.len()).min(1 << 20));
        let mut limited = (&mut *reader).take((length - gathered.len()) as u64);
        if limited.read_buf(gathered).await? == 0 {
            break;
        }
    }
    Ok(gathered.len() - before)
}

//! Reads a file: pieces in parallel and ahead of the reader, within the memory budget.

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, mem, vec};

use bytes::{Buf as _, Bytes, BytesMut};
use dfs_transport::{current_request_id, with_request_id};
use dfs_types::{ErrorCode, RequestId};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::task::JoinHandle;

use crate::chunk_checksum::WholeChunks;
use crate::memory_budget::Share;
use crate::pieces::{Piece, Pieces};
use crate::replica_read::Run;
use crate::{Client, Error, FileStat, GetOptions, ProgressObserver, Target};

/// Maximum number of pieces in flight per reader.
pub(crate) const AHEAD_MAX: usize = 8;
/// Maximum length of the result of [`Client::read_range`] and [`FileReader::read_at`].
const RANGE_MAX: u64 = 64 << 20;

/// A fetched piece with its part of the memory budget.
type Fetched = (Piece, Run, Share);

/// The bytes of a file in order, some of them fetched ahead.
///
/// They belong to one version of the file, even when it is replaced meanwhile; [`ErrorCode::Stale`]
/// once the bytes of a replaced version have been deleted. Every block has been verified. Dropping
/// the reader ends its reads.
///
/// There are three ways of reading, which share one position: as a [`Stream`] of [`Bytes`] without
/// another copy, or with [`FileReader::next`]; as [`AsyncRead`]; and, independently of the
/// position, with [`FileReader::read_at`]. [`AsyncSeek`] moves the position within the whole file;
/// reading stops where the range of [`GetOptions`] ends. After an error the reader is unusable
/// until a seek.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = dfs_fake::Cluster::start(3).await;
/// # let client = dfs_fake::client!(cluster);
/// use std::io::SeekFrom;
/// use dfs_client::GetOptions;
/// # use dfs_client::{DfsPath, PutOptions, PutSource};
/// use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
///
/// # let path = DfsPath::new("/songs")?;
/// # client.put(&path, PutSource::bytes("la li lu"), PutOptions::default()).await?;
/// let mut reader = client.get(&path, GetOptions::default()).await?;
/// reader.seek(SeekFrom::End(-2)).await?;
/// let mut text = String::new();
/// reader.read_to_string(&mut text).await?;
/// assert_eq!(text, "lu");
/// assert_eq!(reader.read_at(3, 2).await?, "li");
/// # Ok(())
/// # }
/// ```
pub struct FileReader {
    client: Client,
    context: String,
    stat: FileStat,
    /// End of the range in the file.
    end: u64,
    /// Offset in the file of the next byte to return.
    position: u64,
    /// Rest of the run that [`AsyncRead`] returns.
    run: Bytes,
    source: Source,
    progress: Option<ProgressObserver>,
    request_id: RequestId,
}

/// A read-ahead fetching its next run, and the result.
type NextRun = BoxFuture<'static, (Box<ReadAhead>, Result<Option<Bytes>, Error>)>;

/// Source of the next run.
enum Source {
    Idle(Box<ReadAhead>),
    /// A run is being fetched.
    Busy(NextRun),
    /// Fetching failed.
    Broken,
}

/// The pieces from a position on.
struct ReadAhead {
    client: Client,
    context: String,
    stat: FileStat,
    /// Offset at which to open the file again, unless it is open.
    start: u64,
    end: u64,
    pieces: Option<Pieces>,
    /// Rest of the current piece. It counts as the caller's, not as a part of the budget: an idle
    /// reader starves no other.
    current: vec::IntoIter<Bytes>,
    ahead: VecDeque<Fetching>,
    chunks: WholeChunks,
}

/// A piece being fetched; aborted with its reader.
struct Fetching(JoinHandle<Result<Fetched, Error>>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FileReader {
    /// Returns the state of the file at the time it was opened.
    pub fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Returns the next bytes, at most 1 MiB; `None` at the end. Cancel-safe: fetched bytes are
    /// returned by the next call.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        std::future::poll_fn(|cx| self.poll_run(cx)).await
    }

    /// Reads `length` bytes from `offset` on, regardless of the position of the reader; fewer at
    /// the end of the file, and at most 64 MiB. Calls may run in parallel.
    pub fn read_at(
        &self,
        offset: u64,
        length: u64,
    ) -> impl Future<Output = Result<Bytes, Error>> + Send + use<> {
        let (client, inode) = (self.client.clone(), Target::Inode(self.stat.inode));
        let reading = async move { client.read_target(&inode, offset, length).await };
        with_request_id(self.request_id, reading)
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        if !self.run.is_empty() {
            let run = mem::take(&mut self.run);
            self.position += run.len() as u64;
            return Poll::Ready(Ok(Some(run)));
        }
        let run = match ready!(self.poll_source(cx)) {
            Ok(run) => run,
            Err(error) => return Poll::Ready(Err(error)),
        };
        self.position += run.as_ref().map_or(0, |run| run.len() as u64);
        Poll::Ready(Ok(run))
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        loop {
            self.source = match mem::replace(&mut self.source, Source::Broken) {
                Source::Idle(mut ahead) => {
                    let id = self.request_id;
                    let next = async move {
                        let run = with_request_id(id, ahead.next_run()).await;
                        (ahead, run)
                    };
                    Source::Busy(next.boxed())
                }
                Source::Busy(mut next) => {
                    let Poll::Ready((ahead, run)) = next.poll_unpin(cx) else {
                        self.source = Source::Busy(next);
                        return Poll::Pending;
                    };
                    if let (Ok(Some(run)), Some(progress)) = (&run, &self.progress) {
                        progress(run.len() as u64);
                    }
                    if run.is_ok() {
                        self.source = Source::Idle(ahead);
                    }
                    return Poll::Ready(run);
                }
                Source::Broken => {
                    let message = "an earlier read failed";
                    let error = Error::new(ErrorCode::Internal, self.context.as_str(), message);
                    return Poll::Ready(Err(error));
                }
            };
        }
    }
}

impl ReadAhead {
    fn at(client: &Client, context: &str, stat: &FileStat, start: u64, end: u64) -> Self {
        Self {
            client: client.clone(),
            context: context.to_owned(),
            stat: stat.clone(),
            start,
            end,
            pieces: None,
            current: Vec::new().into_iter(),
            ahead: VecDeque::new(),
            chunks: WholeChunks::default(),
        }
    }

    async fn next_run(&mut self) -> Result<Option<Bytes>, Error> {
        if self.start >= self.end {
            return Ok(None);
        }
        loop {
            if let Some(bytes) = self.current.next() {
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

    /// Starts pieces while there is room for them; waits for room only for the first one.
    async fn fetch_ahead(&mut self) -> Result<(), Error> {
        while self.ahead.len() < AHEAD_MAX {
            let cost = Piece::MAX.min(self.stat.size.max(1));
            let budget = &self.client.inner.budget;
            let share = if self.ahead.is_empty() {
                budget.take(cost).await
            } else {
                let Some(share) = budget.try_take_ahead(cost) else { return Ok(()) };
                share
            };
            let (client, inode) = (self.client.clone(), self.stat.inode);
            let pieces = match &mut self.pieces {
                Some(pieces) => pieces,
                none => {
                    let (target, length) = (Target::Inode(inode), self.end - self.start);
                    let opened = Pieces::open(&client, &target, self.start, Some(length)).await?;
                    none.insert(opened)
                }
            };
            let Some(piece) = pieces.next(&client).await? else { return Ok(()) };
            let context = self.context.clone();
            let fetching = tokio::spawn(self.client.in_request(async move {
                let run = client.fetch(&context, inode, piece.clone()).await?;
                Ok((piece, run, share))
            }));
            self.ahead.push_back(Fetching(fetching));
        }
        Ok(())
    }
}

impl Stream for FileReader {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reader = self.get_mut();
        // A failed stream ends after its error.
        if matches!(reader.source, Source::Broken) {
            return Poll::Ready(None);
        }
        reader.poll_run(cx).map(Result::transpose)
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let reader = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if reader.run.is_empty() {
            match ready!(reader.poll_source(cx)) {
                Ok(Some(run)) => reader.run = run,
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        let length = reader.run.len().min(buf.remaining());
        buf.put_slice(&reader.run[..length]);
        reader.run.advance(length);
        reader.position += length as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for FileReader {
    fn start_seek(self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let reader = self.get_mut();
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => reader.stat.size.checked_add_signed(delta),
            SeekFrom::Current(delta) => reader.position.checked_add_signed(delta),
        };
        let before_start = || io::Error::new(io::ErrorKind::InvalidInput, "before the start");
        let position = position.ok_or_else(before_start)?;
        if position == reader.position && !matches!(reader.source, Source::Broken) {
            return Ok(());
        }
        reader.position = position;
        reader.run = Bytes::new();
        let FileReader { client, context, stat, end, .. } = &*reader;
        let ahead = ReadAhead::at(client, context, stat, position, *end);
        reader.source = Source::Idle(Box::new(ahead));
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader")
            .field("file", &self.context)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Opens a file for reading, by path or inode.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// use dfs_client::{DfsPath, GetOptions};
    /// # use dfs_client::{PutOptions, PutSource};
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
    pub async fn get(
        &self,
        file: impl Into<Target>,
        options: GetOptions,
    ) -> Result<FileReader, Error> {
        self.open(&file.into(), options).await
    }

    async fn open(&self, target: &Target, options: GetOptions) -> Result<FileReader, Error> {
        let id = current_request_id();
        let request_id = id.unwrap_or_else(|| RequestId::random(self.inner.random.as_ref()));
        let opening = Pieces::open(self, target, options.offset, options.length);
        let pieces = with_request_id(request_id, opening).await?;
        let (stat, end) = (pieces.layout.stat.clone(), pieces.layout.end());
        let context = target.to_string();
        let ahead = ReadAhead::at(self, &context, &stat, options.offset, end);
        Ok(FileReader {
            client: self.clone(),
            context,
            stat,
            end,
            position: options.offset,
            run: Bytes::new(),
            source: Source::Idle(Box::new(ReadAhead { pieces: Some(pieces), ..ahead })),
            progress: options.progress,
            request_id,
        })
    }

    /// Reads `length` bytes from `offset` on, fewer at the end of the file; at most 64 MiB.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cluster = dfs_fake::Cluster::start(3).await;
    /// # let client = dfs_fake::client!(cluster);
    /// # use dfs_client::{DfsPath, PutOptions, PutSource};
    /// # let path = DfsPath::new("/songs")?;
    /// # client.put(&path, PutSource::bytes("la la la"), PutOptions::default()).await?;
    /// assert_eq!(client.read_range(&path, 3, 2).await?, "la");
    /// assert_eq!(client.read_range(&path, 6, 99).await?, "la");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_range(
        &self,
        file: impl Into<Target>,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, Error> {
        self.read_target(&file.into(), offset, length).await
    }

    async fn read_target(&self, target: &Target, offset: u64, length: u64) -> Result<Bytes, Error> {
        let options = GetOptions::default().offset(offset).length(length.min(RANGE_MAX));
        let mut reader = self.open(target, options).await?;
        let Some(first) = reader.next().await? else { return Ok(Bytes::new()) };
        let Some(second) = reader.next().await? else { return Ok(first) };
        let mut bytes = BytesMut::from(&first[..]);
        bytes.extend_from_slice(&second);
        while let Some(more) = reader.next().await? {
            bytes.extend_from_slice(&more);
        }
        Ok(bytes.freeze())
    }
}

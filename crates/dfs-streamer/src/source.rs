//! Where the frames of a chunk come from.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::{ChunkSeal, Crc32c, Frame, Sha256Hasher};
use tokio::sync::mpsc;

use crate::Error;

/// The frames of one chunk, in order, the last of them with the seal.
#[async_trait]
pub trait FrameSource: Send {
    /// The next frame; `None` after the last. Cancel-safe.
    async fn next(&mut self) -> Result<Option<Frame>, Error>;

    /// Goes on with the frame that starts at `offset`, which was given before and is not below
    /// what was acknowledged.
    fn rewind(&mut self, offset: u64) -> Result<(), Error>;

    /// All below `offset` has arrived and will not be asked for again.
    fn acknowledge(&mut self, offset: u64);
}

/// Frames that wait between their maker and the link; with [`Frame::DATA_MAX`] this bounds what a
/// source holds.
const FRAMES_AHEAD: usize = 2;

/// A source that can be opened at any offset, any number of times.
pub struct Reopening<F> {
    open: F,
    frames: Option<mpsc::Receiver<Result<Frame, Error>>>,
}

impl<F> Reopening<F>
where
    F: FnMut(u64) -> mpsc::Receiver<Result<Frame, Error>> + Send,
{
    /// `open` starts to make frames from an offset on.
    pub fn new(open: F) -> Self {
        Self { open, frames: None }
    }
}

#[async_trait]
impl<F> FrameSource for Reopening<F>
where
    F: FnMut(u64) -> mpsc::Receiver<Result<Frame, Error>> + Send,
{
    async fn next(&mut self) -> Result<Option<Frame>, Error> {
        let frames = self.frames.get_or_insert_with(|| (self.open)(0));
        frames.recv().await.transpose()
    }

    fn rewind(&mut self, offset: u64) -> Result<(), Error> {
        self.frames = Some((self.open)(offset));
        Ok(())
    }

    fn acknowledge(&mut self, _offset: u64) {}
}

/// Bytes of one chunk that can be read again. Calls block.
pub trait ChunkBytes: Send + Sync + 'static {
    /// Bytes of the chunk.
    fn length(&self) -> u64;

    /// Reads exactly `length` bytes from `offset`.
    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes>;
}

impl ChunkBytes for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let start = offset as usize;
        let end = start.checked_add(length).filter(|end| *end <= self.len());
        end.map(|end| self.slice(start..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Where reading and hashing run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hashing {
    /// In threads that may block. Takes one thread for each chunk under way.
    #[default]
    Threads,
    /// In the runtime itself, for a simulation that has no threads.
    Inline,
}

/// Makes the frames of a chunk from its bytes: the checksum of each block, of the whole, and the
/// sha256, each computed once, off the threads of the runtime. Opened at a later offset it reads
/// what lies before once more, as the sha256 needs it.
pub fn chunk_source(bytes: Arc<dyn ChunkBytes>, hashing: Hashing) -> impl FrameSource {
    Reopening::new(move |offset| {
        let (frames, made) = mpsc::channel(FRAMES_AHEAD);
        let maker = FrameMaker {
            bytes: bytes.clone(),
            hasher: Sha256Hasher::new(),
            whole: Crc32c::default(),
            position: 0,
        };
        match hashing {
            Hashing::Threads => drop(tokio::task::spawn_blocking(move || {
                make(maker, offset, |frame| frames.blocking_send(frame).is_ok());
            })),
            Hashing::Inline => drop(tokio::spawn(async move {
                let mut maker = maker;
                while let Some(frame) = maker.next(offset) {
                    let is_over = frame.as_ref().map_or(true, |frame| frame.seal.is_some());
                    if frames.send(frame).await.is_err() || is_over {
                        break;
                    }
                }
            })),
        }
        made
    })
}

struct FrameMaker {
    bytes: Arc<dyn ChunkBytes>,
    hasher: Sha256Hasher,
    whole: Crc32c,
    position: u64,
}

impl FrameMaker {
    /// The next frame that does not end at or below `from`.
    fn next(&mut self, from: u64) -> Option<Result<Frame, Error>> {
        loop {
            let total = self.bytes.length();
            let left = total - self.position;
            let data =
                match self.bytes.read(self.position, left.min(Frame::DATA_MAX as u64) as usize) {
                    Ok(data) => data,
                    Err(error) => return Some(Err(Error::Source(error.to_string()))),
                };
            self.hasher.update(&data);
            let mut frame = Frame::of(self.position, data, None);
            for (crc, block) in frame.crcs.iter().zip(frame.data.chunks(dfs_types::BLOCK_SIZE)) {
                self.whole = self.whole.combine(*crc, block.len());
            }
            self.position = frame.end();
            if self.position == total {
                let sha256 = std::mem::take(&mut self.hasher).finish();
                frame.seal = Some(ChunkSeal { length: total, crc32c: self.whole, sha256 });
                return Some(Ok(frame));
            }
            if frame.end() > from {
                return Some(Ok(frame));
            }
        }
    }
}

fn make(mut maker: FrameMaker, from: u64, mut give: impl FnMut(Result<Frame, Error>) -> bool) {
    while let Some(frame) = maker.next(from) {
        let is_over = frame.as_ref().map_or(true, |frame| frame.seal.is_some());
        if !give(frame) || is_over {
            return;
        }
    }
}

/// Frames on their way through: kept until they are acknowledged, so that a broken stream to the
/// next node can be taken up again. Bounded by the window of the sender they came from.
pub(crate) struct Forwarding {
    incoming: mpsc::Receiver<Frame>,
    kept: VecDeque<Frame>,
    position: usize,
    is_complete: bool,
}

impl Forwarding {
    pub(crate) fn new(incoming: mpsc::Receiver<Frame>) -> Self {
        Self { incoming, kept: VecDeque::new(), position: 0, is_complete: false }
    }
}

#[async_trait]
impl FrameSource for Forwarding {
    async fn next(&mut self) -> Result<Option<Frame>, Error> {
        if self.position == self.kept.len() {
            if self.is_complete {
                return Ok(None);
            }
            let Some(frame) = self.incoming.recv().await else {
                return Err(Error::Source("the session of the sender ended".to_owned()));
            };
            self.is_complete = frame.seal.is_some();
            self.kept.push_back(frame);
        }
        let frame = self.kept.get(self.position).cloned();
        self.position += 1;
        Ok(frame)
    }

    fn rewind(&mut self, offset: u64) -> Result<(), Error> {
        let found = self.kept.iter().position(|frame| frame.offset >= offset);
        self.position = found.unwrap_or(self.kept.len());
        let expected = self.kept.get(self.position).map_or(offset, |frame| frame.offset);
        if expected != offset {
            return Err(Error::Source(format!("bytes from {offset} on are no longer kept")));
        }
        Ok(())
    }

    fn acknowledge(&mut self, offset: u64) {
        // The last frame stays: with it the final answer can be asked for again.
        while self.kept.front().is_some_and(|f| f.end() <= offset && f.seal.is_none())
            && self.position > 0
        {
            self.kept.pop_front();
            self.position -= 1;
        }
    }
}

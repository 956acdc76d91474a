//! Sources of the frames of a chunk.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::{BLOCK_SIZE, ChunkSeal, Crc32c, Frame, Sha256Hasher};
use tokio::sync::mpsc;

use crate::Error;

/// The frames of one chunk, in order; the last one has the seal.
#[async_trait]
pub trait FrameSource: Send {
    /// Returns the next frame; `None` after the last. Cancel-safe.
    async fn next(&mut self) -> Result<Option<Frame>, Error>;

    /// Continues with the frame that starts at `offset`, which is the start or end of a frame
    /// returned before; not below the acknowledged offset.
    fn rewind(&mut self, offset: u64) -> Result<(), Error>;

    /// Announces that everything below `offset` has arrived and will not be requested again.
    fn acknowledge(&mut self, offset: u64);
}

/// Frames queued between the source and the link; with [`Frame::DATA_MAX`] this bounds the memory
/// of a source.
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
    /// Creates a source; `open` starts to produce frames from an offset on.
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

/// Bytes of one chunk that can be read repeatedly. Calls block.
pub trait ChunkBytes: Send + Sync + 'static {
    /// Returns the length of the chunk.
    fn length(&self) -> u64;

    /// Returns whether reading is only a reference to memory.
    fn is_in_memory(&self) -> bool {
        false
    }

    /// Reads exactly `length` bytes from `offset`.
    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes>;
}

impl ChunkBytes for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn is_in_memory(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let start = offset as usize;
        let end = start.checked_add(length).filter(|end| *end <= self.len());
        end.map(|end| self.slice(start..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Threads that read and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hashing {
    /// On blocking threads. Takes one thread per chunk in progress.
    #[default]
    Threads,
    /// In the runtime itself, for a simulation without threads.
    Inline,
}

/// Produces the frames of a chunk from its bytes: the checksum of each block, of the whole, and the
/// sha256, each computed once, off the runtime's threads unless it is one block in memory, for which
/// handing it to a thread costs more than hashing it. When opened at a later offset, it reads
/// the earlier bytes again for the sha256: bytes that have changed meanwhile result in a seal that
/// no receiver accepts. The length is requested once.
pub fn chunk_source(bytes: Arc<dyn ChunkBytes>, hashing: Hashing) -> impl FrameSource {
    let total = bytes.length();
    Reopening::new(move |offset| {
        let (frames, made) = mpsc::channel(FRAMES_AHEAD);
        let maker = FrameMaker {
            bytes: bytes.clone(),
            total,
            hasher: Sha256Hasher::new(),
            whole: Crc32c::default(),
            position: 0,
        };
        if total <= BLOCK_SIZE as u64 && bytes.is_in_memory() {
            // A single frame, for which the channel has room.
            make(maker, offset, |frame| frames.try_send(frame).is_ok());
            return made;
        }
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
    total: u64,
    hasher: Sha256Hasher,
    whole: Crc32c,
    position: u64,
}

impl FrameMaker {
    /// Returns the next frame that does not end at or below `from`.
    fn next(&mut self, from: u64) -> Option<Result<Frame, Error>> {
        loop {
            let total = self.total;
            let length = (total - self.position).min(Frame::DATA_MAX as u64) as usize;
            let data = match self.bytes.read(self.position, length) {
                Ok(data) if data.len() == length => data,
                Ok(data) => {
                    let what = format!("a read of {length} bytes returned {}", data.len());
                    return Some(Err(Error::Source(what)));
                }
                Err(error) => return Some(Err(Error::Source(error.to_string()))),
            };
            self.hasher.update(&data);
            let mut frame = Frame::of(self.position, data, None);
            for (crc, block) in frame.crcs.iter().zip(frame.data.chunks(BLOCK_SIZE)) {
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

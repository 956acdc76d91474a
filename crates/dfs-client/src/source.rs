//! Sources of a put.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use dfs_streamer::ChunkBytes;
use tokio::io::AsyncRead;

/// The content of a file to be put.
pub struct PutSource(pub(crate) Kind);

pub(crate) enum Kind {
    File(PathBuf),
    Bytes(Bytes),
    Reader(Pin<Box<dyn AsyncRead + Send>>),
}

impl PutSource {
    /// Reads a local file. A regular file is read while it is sent, and must not change meanwhile:
    /// a changed size or mtime fails the put with [`dfs_types::ErrorCode::Conflict`]. Pipes,
    /// devices and files of `/proc`, whose size is meaningless, are read in order until they end.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// Reads bytes in memory.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Bytes(bytes.into()))
    }

    /// Reads a stream of unknown length that cannot be read twice. Its chunks are smaller, as each
    /// is kept in memory until it is durable.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self(Kind::Reader(Box::pin(reader)))
    }
}

impl fmt::Debug for PutSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::File(_) => "PutSource::file",
            Kind::Bytes(_) => "PutSource::bytes",
            Kind::Reader(_) => "PutSource::reader",
        })
    }
}

/// One chunk's part of a local file.
pub(crate) struct FileChunk {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl ChunkBytes for FileChunk {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, self.offset + offset)?;
        Ok(buffer.into())
    }
}

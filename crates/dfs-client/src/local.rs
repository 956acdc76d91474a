//! Local files as sources.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use dfs_types::ErrorCode;

use crate::Error;

/// Files up to this length are read at once. Larger than any file of sysfs, whose reported sizes
/// are wrong.
const SMALL_MAX: usize = 64 << 10;
/// Bytes read at a time from sources that can only be read in order.
const STEP: usize = 1 << 20;

/// The content of a local file, by how it can be read.
pub(crate) enum LocalContent {
    /// All of it.
    Small(Bytes),
    /// A regular file of this size, readable at any offset.
    Regular { file: File, fingerprint: Fingerprint },
    /// Read in order until it ends: pipes, devices, and files whose size is meaningless.
    Stream(File),
}

/// Identifies a version of a local file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) size: u64,
    mtime: (i64, i64),
}

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), mtime: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl LocalContent {
    /// Opens a file. Blocks on a pipe until it has a writer.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| failure("read", path, &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if !metadata.is_file() {
            return Ok(Self::Stream(file));
        }
        let fingerprint = Fingerprint::of(&metadata);
        if fingerprint.size > SMALL_MAX as u64 {
            return Ok(Self::Regular { file, fingerprint });
        }
        // Files in /proc have size 0, and a growing file may have outgrown its size.
        let mut bytes = Vec::with_capacity(fingerprint.size as usize + 1);
        let mut start = (&file).take(SMALL_MAX as u64 + 1);
        start.read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > SMALL_MAX {
            io::Seek::rewind(&mut &file).map_err(failed)?;
            return Ok(Self::Stream(file));
        }
        if !bytes.is_empty() {
            check_unchanged(path, &file, fingerprint)?;
        }
        Ok(Self::Small(bytes.into()))
    }
}

/// Refuses a file that has changed.
pub(crate) fn check_unchanged(path: &Path, file: &File, before: Fingerprint) -> Result<(), Error> {
    let metadata = file.metadata().map_err(|error| failure("read", path, &error))?;
    if Fingerprint::of(&metadata) == before {
        return Ok(());
    }
    let message = "it changed while it was being put; nothing was stored; try again";
    Err(Error::new(ErrorCode::Conflict, path.display().to_string(), message))
}

/// Reads the next bytes in order; none at the end. Blocks.
pub(crate) fn read_some(file: &File, path: &Path) -> Result<Bytes, Error> {
    let mut bytes = Vec::with_capacity(STEP);
    let read = file.take(STEP as u64).read_to_end(&mut bytes);
    read.map_err(|error| failure("read", path, &error))?;
    Ok(bytes.into())
}

/// An error of the operating system about a local path.
pub(crate) fn failure(action: &str, path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::AlreadyExists => ErrorCode::AlreadyExists,
        io::ErrorKind::NotADirectory => ErrorCode::NotADirectory,
        io::ErrorKind::IsADirectory => ErrorCode::IsADirectory,
        io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
        io::ErrorKind::InvalidInput => ErrorCode::InvalidArgument,
        _ => ErrorCode::Internal,
    };
    let path = printable(path);
    Error::new(code, path.clone(), format!("cannot {action} {path}: {error}"))
}

/// Returns a path as text without control characters.
pub(crate) fn printable(path: &Path) -> String {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Runs blocking work on a thread pool. It starts at once, and is not cancelled when dropped.
pub(crate) fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> impl Future<Output = Result<T, Error>> {
    let done = tokio::task::spawn_blocking(work);
    async move {
        done.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorCode::Internal, "a local file", error.to_string()))
        })
    }
}

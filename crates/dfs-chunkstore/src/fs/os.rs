//! The operating system's file system.
//!
//! Large sequential files bypass the page cache: on fast disks that is several times faster than
//! buffered writes followed by a sync, and leaves the cache to small reads. If the file system does
//! not support that, like tmpfs and overlays, such files are written through the cache and dropped
//! from it when synced.

use std::fs;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt as _, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use dfs_types::{FileSystemId, Sha256Hasher};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, SeekFrom};

use super::{File, Fs, FsLock, Opening, PAGE, Space};

/// Bytes of one direct write.
const DIRECT_WRITE: usize = 1 << 20;
/// Maximum number of buffers kept for reuse by direct writes.
const BUFFERS_KEPT: usize = 4;
/// Maximum number of slices of one vectored write.
const SLICES_MAX: usize = 1024;

/// The operating system's file system. Clones share their write buffers.
#[derive(Debug, Clone, Default)]
pub struct OsFs {
    buffers: Arc<Buffers>,
}

/// Buffers with a page-aligned part of [`DIRECT_WRITE`] bytes.
#[derive(Debug, Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    buffers: Arc<Buffers>,
    /// True if writes bypass the page cache.
    is_direct: AtomicBool,
    /// True if the file is dropped from the page cache once synced.
    is_streaming: bool,
}

#[derive(Debug)]
struct OsLock {
    _file: fs::File,
}

impl FsLock for OsLock {}

impl OsFs {
    /// Returns the file system of this machine.
    pub fn new() -> Self {
        Self::default()
    }

    fn create(path: &Path, flags: OFlags) -> io::Result<fs::File> {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
    }
}

impl Fs for OsFs {
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn File>> {
        let mut is_direct = how == Opening::CreateStreaming;
        let file = match how {
            Opening::Existing => fs::OpenOptions::new().read(true).write(true).open(path)?,
            Opening::Create => Self::create(path, OFlags::empty())?,
            Opening::CreateStreaming => match Self::create(path, OFlags::DIRECT) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    is_direct = false;
                    Self::create(path, OFlags::empty())?
                }
                opened => opened?,
            },
        };
        Ok(Arc::new(OsFile {
            file,
            buffers: Arc::clone(&self.buffers),
            is_direct: AtomicBool::new(is_direct),
            is_streaming: how == Opening::CreateStreaming,
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: found.f_blocks * found.f_frsize,
            available: found.f_bavail * found.f_frsize,
            file_system: file_system(path)?,
        })
    }
}

/// Returns the file system of a path, distinguished from those of other machines by the boot id,
/// because device numbers repeat. Containers of one machine see the same numbers.
fn file_system(path: &Path) -> io::Result<Option<FileSystemId>> {
    static BOOT: LazyLock<Option<String>> =
        LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").ok());
    let Some(boot) = &*BOOT else { return Ok(None) };
    let mut hasher = Sha256Hasher::default();
    hasher.update(boot.as_bytes());
    hasher.update(&fs::metadata(path)?.dev().to_be_bytes());
    let digest = hasher.finish();
    Ok(digest.0.get(..FileSystemId::LEN).and_then(FileSystemId::from_slice))
}

impl OsFile {
    fn write_buffered(&self, mut offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        for run in pieces.chunks(SLICES_MAX) {
            let mut slices: Vec<_> = run.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut slices = slices.as_mut_slice();
            IoSlice::advance_slices(&mut slices, 0);
            while !slices.is_empty() {
                match rustix::io::pwritev(&self.file, slices, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        offset += written as u64;
                        IoSlice::advance_slices(&mut slices, written);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn write_direct(&self, mut offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let mut buffer = self.buffers.take();
        let start = buffer.as_ptr().align_offset(PAGE);
        let aligned = &mut buffer[start..start + DIRECT_WRITE];
        let mut pieces = pieces.iter().cloned();
        let mut piece = Bytes::new();
        let result = loop {
            let mut filled = 0;
            while filled < DIRECT_WRITE {
                if piece.is_empty() {
                    match pieces.next() {
                        Some(next) => piece = next,
                        None => break,
                    }
                }
                let count = piece.len().min(DIRECT_WRITE - filled);
                piece.copy_to_slice(&mut aligned[filled..filled + count]);
                filled += count;
            }
            if filled == 0 {
                break Ok(());
            }
            if let Err(error) = self.write_aligned(&aligned[..filled], offset) {
                break Err(error);
            }
            offset += filled as u64;
        };
        self.buffers.give_back(buffer);
        result
    }

    fn write_aligned(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.file.write_all_at(bytes, offset) {
            // Some file systems accept the flag but refuse the write.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let flags = rustix::fs::fcntl_getfl(&self.file)?;
                rustix::fs::fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
                self.is_direct.store(false, Ordering::Relaxed);
                self.file.write_all_at(bytes, offset)
            }
            written => written,
        }
    }
}

impl File for OsFile {
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(Bytes::from(bytes))
    }

    fn will_read(&self, offset: u64, length: u64) {
        // The kernel considers concurrent reads of one file random, and then does not read ahead.
        let _ = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(length), Advice::WillNeed);
    }

    fn drop_cached(&self, offset: u64, length: u64) {
        let _ = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(length), Advice::DontNeed);
    }

    fn write_at(&self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        if self.is_direct.load(Ordering::Relaxed) {
            self.write_direct(offset, pieces)
        } else {
            self.write_buffered(offset, pieces)
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.is_streaming && !self.is_direct.load(Ordering::Relaxed) {
            // Only a hint: the data is safe either way.
            let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        if NonZeroU64::new(length).is_none() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, length) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            punched => Ok(punched?),
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(rustix::io::Errno::INVAL) => Ok((offset < self.length()?).then_some(offset)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; DIRECT_WRITE + PAGE])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_KEPT {
            kept.push(buffer);
        }
    }
}

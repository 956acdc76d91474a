//! Local files that appear under their name only when complete.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::in_progress::InProgressGuard;

/// Maximum number of concurrent writers of one target.
const ATTEMPTS: u32 = 100;
/// Bytes of the target's name that are part of the temporary name.
const NAME_MAX: usize = 200;

/// A file next to its target, which it replaces when complete. Removed if dropped before that.
///
/// Its name is derived from the target's, and it is locked while it is written. So the leftover of
/// a killed process is found by the next writer of the same target, which reuses it; the file of a
/// live process is left alone.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    temporary: PathBuf,
    target: PathBuf,
    /// Holds the lock.
    file: File,
    is_kept: bool,
    _live: InProgressGuard,
}

impl TemporaryFile {
    /// Creates an empty file next to `target`, accessible only to its owner until it is complete.
    pub(super) fn create(target: &Path, live: InProgressGuard) -> io::Result<Self> {
        for attempt in 0..ATTEMPTS {
            let temporary = temporary_name(target, attempt)?;
            if let Some(file) = open_locked(&temporary)? {
                let target = target.to_owned();
                return Ok(Self { temporary, target, file, is_kept: false, _live: live });
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "other processes are writing it"))
    }

    /// Returns its current path.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Returns another handle of the file.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Moves it to its target, replacing an existing file.
    pub(super) fn keep(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // A file that cannot be removed stays.
            drop(fs::remove_file(&self.temporary));
        }
    }
}

fn temporary_name(target: &Path, attempt: u32) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
    let name = name.as_bytes();
    let mut temporary = b".dfs-".to_vec();
    temporary.extend_from_slice(&name[..name.len().min(NAME_MAX)]);
    if name.len() > NAME_MAX {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        temporary.extend_from_slice(format!("-{:016x}", hasher.finish()).as_bytes());
    }
    temporary.extend_from_slice(format!(".{attempt}.partial").as_bytes());
    Ok(target.with_file_name(OsStr::from_bytes(&temporary)))
}

/// Opens a temporary file, new or left by a dead process, and empties it. `None` when it is in use,
/// or not a temporary file of this process's user.
fn open_locked(path: &Path) -> io::Result<Option<File>> {
    let opened = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        // A symlink, a directory, or a file of another user.
        Err(error)
            if error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
                || error.kind() == io::ErrorKind::IsADirectory
                || (error.kind() == io::ErrorKind::PermissionDenied && path.exists()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The previous holder of the lock may have renamed or removed the file meanwhile.
    let held = file.metadata()?;
    let is_ours = held.is_file()
        && held.nlink() == 1
        && held.uid() == rustix::process::geteuid().as_raw()
        && fs::symlink_metadata(path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()));
    if !is_ours {
        return Ok(None);
    }
    file.set_len(0)?;
    clear_xattrs(&file)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600))?;
    Ok(Some(file))
}

/// Removes the extended attributes set by an earlier process.
fn clear_xattrs(file: &File) -> io::Result<()> {
    let mut names = [0_u8; 4_096];
    loop {
        let length = match rustix::fs::flistxattr(file, &mut names) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut users =
            names[..length].split(|b| *b == 0).filter(|name| name.starts_with(b"user."));
        let Some(first) = users.next() else { return Ok(()) };
        rustix::fs::fremovexattr(file, first)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_progress::InProgress;

    fn create(target: &Path) -> TemporaryFile {
        TemporaryFile::create(target, InProgress::default().enter()).unwrap()
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn pending_file_has_no_final_name_until_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for length in [1, 200, 201, 255] {
            let target = folder.path().join("n".repeat(length));
            let pending = create(&target);
            assert!(pending.path().exists() && !target.exists());
            drop(pending);
            assert_eq!(names(folder.path()), 0);
            create(&target).keep().unwrap();
            assert!(target.exists());
            fs::remove_file(target).unwrap();
            assert_eq!(names(folder.path()), 0);
        }
    }

    #[test]
    fn leftover_of_a_killed_process_is_reused() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let left = temporary_name(&target, 0).unwrap();
        fs::write(&left, b"half of it").unwrap();
        let pending = create(&target);
        assert_eq!(pending.path(), left);
        assert_eq!(fs::metadata(&left).unwrap().len(), 0);
        pending.keep().unwrap();
        assert_eq!(names(folder.path()), 1);
    }

    #[test]
    fn file_in_use_or_of_another_kind_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let first = create(&target);
        let second = create(&target);
        assert_ne!(first.path(), second.path());
        drop((first, second));
        let other = folder.path().join("other");
        fs::write(&other, b"mine").unwrap();
        std::os::unix::fs::symlink(&other, temporary_name(&target, 0).unwrap()).unwrap();
        fs::hard_link(&other, temporary_name(&target, 1).unwrap()).unwrap();
        fs::create_dir(temporary_name(&target, 2).unwrap()).unwrap();
        drop(create(&target));
        assert_eq!(fs::read(&other).unwrap(), b"mine");
        assert_eq!(names(folder.path()), 4);
    }
}

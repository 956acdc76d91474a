//! The local side of copying trees: walking what is put, and giving back attributes to what was
//! got.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dfs_types::{Attributes, FileTime};
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

/// What a local path is, as far as dfs can keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes.
    File {
        /// Their number when it was looked at.
        size: u64,
        /// It has further names, which become files of their own.
        is_hard_linked: bool,
    },
    /// Names.
    Directory,
    /// Where it points to.
    Symlink(Vec<u8>),
    /// A device, socket or pipe, which is skipped.
    Special(&'static str),
}

/// One local path.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) kind: Kind,
    /// What is kept of it beside its content.
    pub(crate) attributes: Attributes,
}

impl Entry {
    /// Looks at a path without following a symlink.
    pub(crate) fn read(path: PathBuf) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(&path)?;
        let kind = kind(&path, &metadata)?;
        Ok(Self { path, kind, attributes: attributes(&metadata) })
    }

    /// Looks at what a path stands for, as `cp` does with what is named on its command line when
    /// it does not copy trees.
    pub(crate) fn read_following(path: PathBuf) -> io::Result<Self> {
        let metadata = fs::metadata(&path)?;
        let kind = kind(&path, &metadata)?;
        Ok(Self { path, kind, attributes: attributes(&metadata) })
    }

    /// The entries of a directory in name order, so that runs are alike.
    pub(crate) fn children(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths =
            fs::read_dir(&self.path)?.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    /// Whether it has extended attributes, which dfs does not keep.
    pub(crate) fn has_extended_attributes(&self) -> bool {
        let mut names = [0_u8; 4_096];
        match rustix::fs::llistxattr(&self.path, &mut names) {
            // Labels that the kernel gives to every file say nothing about this one.
            Ok(length) => names[..length.min(names.len())]
                .split(|b| *b == 0)
                .any(|name| !name.is_empty() && name != b"security.selinux"),
            Err(Errno::RANGE) => true,
            Err(_) => false,
        }
    }
}

fn kind(path: &Path, metadata: &Metadata) -> io::Result<Kind> {
    let file_type = metadata.file_type();
    Ok(if file_type.is_file() {
        Kind::File { size: metadata.len(), is_hard_linked: metadata.nlink() > 1 }
    } else if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink(fs::read_link(path)?.as_os_str().as_bytes().to_vec())
    } else if file_type.is_fifo() {
        Kind::Special("pipe")
    } else if file_type.is_socket() {
        Kind::Special("socket")
    } else {
        Kind::Special("device")
    })
}

fn attributes(metadata: &Metadata) -> Attributes {
    Attributes {
        mode: metadata.mode() & Attributes::MODE_MASK,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: FileTime::new(metadata.mtime(), metadata.mtime_nsec() as u32).unwrap_or_default(),
    }
}

/// Gives a local file or directory its attributes: owner and group as root alone, then the mode
/// (which a change of owner may clear bits of), then the mtime.
pub(crate) fn apply_attributes(path: &Path, attributes: &Attributes) -> io::Result<()> {
    apply_owner(path, attributes)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(attributes.mode))?;
    apply_mtime(path, attributes)
}

/// The same for a symlink, which has no mode of its own.
pub(crate) fn apply_symlink_attributes(path: &Path, attributes: &Attributes) -> io::Result<()> {
    apply_owner(path, attributes)?;
    apply_mtime(path, attributes)
}

fn apply_owner(path: &Path, attributes: &Attributes) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(attributes.uid), rustix::fs::Gid::from_raw(attributes.gid));
    Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn apply_mtime(path: &Path, attributes: &Attributes) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: attributes.mtime.seconds(),
            tv_nsec: i64::from(attributes.mtime.nanos()),
        },
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A file that gets its final name only when it is whole; dropped before, it leaves nothing.
#[derive(Debug)]
pub(crate) struct PendingFile {
    temporary: PathBuf,
    target: PathBuf,
    is_kept: bool,
}

impl PendingFile {
    /// Makes an empty file beside `target`, readable by its owner alone until it is whole.
    pub(crate) fn create(target: &Path) -> io::Result<(Self, File)> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let name =
            target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        for attempt in 0_u32..100 {
            // Short of the 255 bytes a name may have, whatever the length of the target's.
            let mut temporary = b".dfs-".to_vec();
            temporary.extend_from_slice(&name.as_bytes()[..name.len().min(200)]);
            temporary.extend_from_slice(format!(".{}.{attempt}", std::process::id()).as_bytes());
            let temporary = target.with_file_name(std::ffi::OsStr::from_bytes(&temporary));
            match File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)
            {
                Ok(file) => {
                    let pending = Self { temporary, target: target.to_owned(), is_kept: false };
                    return Ok((pending, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where it lies for now.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives it its name, replacing a file that has it.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nothing more can be done about a file that cannot be removed.
            drop(fs::remove_file(&self.temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_file_has_no_final_name_until_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("n".repeat(255));
        let (pending, _) = PendingFile::create(&target).unwrap();
        assert!(pending.path().exists() && !target.exists());
        drop(pending);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let (pending, _) = PendingFile::create(&target).unwrap();
        pending.keep().unwrap();
        assert!(target.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn attributes_survive_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"x").unwrap();
        let mut wanted = Entry::read(file.clone()).unwrap().attributes;
        wanted.mode = 0o4751;
        wanted.mtime = FileTime::new(-5, 123_456_789).unwrap();
        apply_attributes(&file, &wanted).unwrap();
        assert_eq!(Entry::read(file).unwrap().attributes, wanted);
    }

    #[test]
    fn kinds_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), b"abc").unwrap();
        fs::hard_link(at("file"), at("again")).unwrap();
        std::os::unix::fs::symlink("nowhere\u{e9}", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let kind = |name: &str| Entry::read(at(name)).unwrap().kind;
        assert_eq!(kind("file"), Kind::File { size: 3, is_hard_linked: true });
        assert_eq!(kind("link"), Kind::Symlink("nowhere\u{e9}".into()));
        assert_eq!(kind("socket"), Kind::Special("socket"));
        assert_eq!(kind("."), Kind::Directory);
        assert!(Entry::read_following(at("link")).is_err());
    }
}

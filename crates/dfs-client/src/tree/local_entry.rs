//! Entries of the local file system.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dfs_types::{Attributes, FileTime};
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, UTIME_OMIT};

use super::local_xattrs::LocalXattrs;

/// Kind of a local entry, as far as dfs can store it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File {
        /// Its length when the entry was read.
        size: u64,
        /// True if it has other names, which become separate files.
        is_hard_linked: bool,
    },
    /// A directory.
    Directory,
    /// A symlink with this target.
    Symlink(Vec<u8>),
    /// A device, socket or pipe.
    Special(&'static str),
}

/// One local path.
#[derive(Debug, Clone)]
pub(super) struct LocalEntry {
    /// Its path.
    pub(super) path: PathBuf,
    /// Its kind.
    pub(super) kind: Kind,
    /// Its mode, owner, group and mtime.
    pub(super) attributes: Attributes,
    /// True if it has extended attributes.
    pub(super) has_xattrs: bool,
}

impl LocalEntry {
    /// Reads a path without following a symlink.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Self::of(path, &fs::symlink_metadata(path)?)
    }

    /// Reads a path, following a symlink.
    pub(super) fn read_following(path: &Path) -> io::Result<Self> {
        Self::of(path, &fs::metadata(path)?)
    }

    fn of(path: &Path, metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            kind: kind(path, metadata)?,
            attributes: attributes(metadata),
            has_xattrs: LocalXattrs::exist(path),
            path: path.to_owned(),
        })
    }

    /// Returns the names in a directory, in order.
    pub(super) fn children(&self) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(&self.path)?
            .map(|e| Ok(e?.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
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

/// Sets the attributes of a local file or directory: owner and group only as root, then the mode
/// (some bits of which a change of owner clears), then the mtime.
pub(super) fn apply_attributes(path: &Path, attributes: &Attributes) -> io::Result<()> {
    apply_owner(path, attributes)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(attributes.mode))?;
    apply_mtime(path, attributes)
}

/// Sets the attributes of a local symlink, which has no separate mode.
pub(super) fn apply_symlink_attributes(path: &Path, attributes: &Attributes) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"x").unwrap();
        let mut wanted = LocalEntry::read(&file).unwrap().attributes;
        wanted.mode = 0o4751;
        wanted.mtime = FileTime::new(-5, 123_456_789).unwrap();
        apply_attributes(&file, &wanted).unwrap();
        assert_eq!(LocalEntry::read(&file).unwrap().attributes, wanted);
    }

    #[test]
    fn kinds_are_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), b"abc").unwrap();
        fs::hard_link(at("file"), at("again")).unwrap();
        std::os::unix::fs::symlink("nowhere\u{e9}", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let kind = |name: &str| LocalEntry::read(&at(name)).unwrap().kind;
        assert_eq!(kind("file"), Kind::File { size: 3, is_hard_linked: true });
        assert_eq!(kind("link"), Kind::Symlink("nowhere\u{e9}".into()));
        assert_eq!(kind("socket"), Kind::Special("socket"));
        assert_eq!(kind("."), Kind::Directory);
        assert!(LocalEntry::read_following(&at("link")).is_err());
    }
}

//! Extended attributes of the local file system.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;
use dfs_types::XattrName;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Linux limits of the name list of a file and of a value, in bytes.
const BYTES_MAX: usize = 64 << 10;
/// Bytes of names that suffice to see whether there are any.
const GLANCE: usize = 4_096;

/// Extended attributes of a local entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LocalXattrs {
    /// Attributes of the namespace `user.` that an inode of dfs can hold.
    pub(super) kept: BTreeMap<XattrName, Bytes>,
    /// True if there are others.
    pub(super) some_lost: bool,
}

impl LocalXattrs {
    /// Returns true if a path, itself if it is a symlink, has any.
    pub(super) fn exist(path: &Path) -> bool {
        let mut names = [0_u8; GLANCE];
        match rustix::fs::llistxattr(path, &mut names) {
            Ok(length) => names_in(&names[..length.min(GLANCE)]).next().is_some(),
            Err(Errno::RANGE) => true,
            Err(_) => false,
        }
    }

    /// Reads those of a path, following a symlink.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        let mut names = vec![0; BYTES_MAX];
        let length = match rustix::fs::listxattr(path, &mut names) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        let mut buffer = vec![0; BYTES_MAX];
        for name in names_in(&names[..length]) {
            let name = XattrName::new(name.to_vec()).ok().filter(XattrName::is_user);
            let Some(name) = name else {
                found.some_lost = true;
                continue;
            };
            let value = match rustix::fs::getxattr(path, name.as_bytes(), &mut buffer) {
                Ok(length) => Bytes::copy_from_slice(&buffer[..length]),
                // It was removed meanwhile.
                Err(Errno::NODATA) => continue,
                Err(error) => return Err(error.into()),
            };
            found.kept.insert(name.clone(), value);
            if XattrName::check_all(&found.kept).is_err() {
                found.kept.remove(&name);
                found.some_lost = true;
            }
        }
        Ok(found)
    }
}

/// Sets the attributes of the namespace `user.` of a local file or directory, through no symlink.
/// Returns true if some are lost: those of other namespaces, and those that the file system cannot
/// hold.
pub(super) fn apply_xattrs(path: &Path, xattrs: &BTreeMap<XattrName, Bytes>) -> io::Result<bool> {
    let mut some_lost = false;
    for (name, value) in xattrs {
        if !name.is_user() {
            some_lost = true;
            continue;
        }
        match rustix::fs::lsetxattr(path, name.as_bytes(), value, XattrFlags::empty()) {
            Ok(()) => {}
            // No support for attributes, or not for as many or as large ones.
            Err(Errno::NOTSUP | Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => some_lost = true,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(some_lost)
}

/// Returns the names in a list of the kernel, except labels that it gives to every file.
fn names_in(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == 0).filter(|name| !name.is_empty() && *name != b"security.selinux")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> XattrName {
        XattrName::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn user_xattrs_survive_a_round_trip_where_the_file_system_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let xattrs = BTreeMap::from([
            (name("user.b"), Bytes::from_static(b"\0\xff")),
            (name("user.a"), Bytes::new()),
        ]);
        let at = folder.path();
        assert_eq!(LocalXattrs::read(at).unwrap(), LocalXattrs::default());
        if apply_xattrs(at, &xattrs).unwrap() {
            eprintln!("skipped: this file system has no extended attributes");
            return;
        }
        assert!(LocalXattrs::exist(at));
        let found = LocalXattrs::read(at).unwrap();
        assert_eq!(found, LocalXattrs { kept: xattrs, some_lost: false });
    }

    #[test]
    fn xattr_of_another_namespace_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let xattrs = BTreeMap::from([(name("trusted.a"), Bytes::new())]);
        assert!(apply_xattrs(folder.path(), &xattrs).unwrap());
        assert!(!LocalXattrs::read(folder.path()).unwrap().kept.contains_key(&name("trusted.a")));
    }

    #[test]
    fn file_system_without_xattrs_loses_them() {
        let xattrs = BTreeMap::from([(name("user.a"), Bytes::new())]);
        // No user can set attributes there.
        assert!(apply_xattrs(Path::new("/proc/self"), &xattrs).unwrap_or(true));
        assert!(LocalXattrs::read(Path::new("/proc/self")).unwrap().kept.is_empty());
    }
}

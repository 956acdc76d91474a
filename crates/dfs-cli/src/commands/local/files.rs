//! Files of the tour: generating them, and comparing two trees.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dfs_types::{Random, SeededRandom, Sha256, Sha256Hasher};

/// Bytes of the large file: slightly more than two chunks.
const LARGE: u64 = (100 << 20) + 3;
/// Number of small files.
const SMALL: u64 = 200;

/// Creates a small tree with every kind of entry.
pub(super) fn generate(folder: &Path) -> io::Result<()> {
    let random = SeededRandom::new(1);
    fs::create_dir_all(folder.join("small"))?;
    write(&folder.join("large"), LARGE, &random)?;
    write(&folder.join("empty"), 0, &random)?;
    write(&folder.join("name with spaces, ümläut"), 65_537, &random)?;
    for number in 0..SMALL {
        write(&folder.join(format!("small/{number}")), 1 + number * 41, &random)?;
    }
    symlink("small/0", folder.join("link"))
}

fn write(path: &Path, length: u64, random: &dyn Random) -> io::Result<()> {
    let mut file = io::BufWriter::new(File::create(path)?);
    let mut block = vec![0; 64 << 10];
    let mut left = length;
    while left > 0 {
        random.fill(&mut block);
        let part = left.min(block.len() as u64);
        file.write_all(block.get(..part as usize).unwrap_or_default())?;
        left -= part;
    }
    file.flush()
}

/// The content of a tree, by path relative to its top.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    entries: BTreeMap<PathBuf, Kind>,
    /// Total of all files.
    pub(super) bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    Symlink(OsString),
    File(Sha256),
}

impl Summary {
    /// Reads a tree or file completely.
    pub(super) fn of(top: &Path) -> io::Result<Self> {
        let mut summary = Self { entries: BTreeMap::new(), bytes: 0 };
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            let at = if path.as_os_str().is_empty() { top.to_owned() } else { top.join(&path) };
            let kind = fs::symlink_metadata(&at)?.file_type();
            let kind = if kind.is_dir() {
                for entry in fs::read_dir(&at)? {
                    waiting.push(path.join(entry?.file_name()));
                }
                Kind::Directory
            } else if kind.is_symlink() {
                Kind::Symlink(fs::read_link(&at)?.into_os_string())
            } else if kind.is_file() {
                Kind::File(summary.hash(&at)?)
            } else {
                // Devices and sockets are not stored.
                continue;
            };
            summary.entries.insert(path, kind);
        }
        Ok(summary)
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the first path, relative to the top, at which two trees differ.
    pub(super) fn difference(&self, other: &Self) -> Option<PathBuf> {
        let all = self.entries.keys().chain(other.entries.keys());
        all.filter(|path| self.entries.get(*path) != other.entries.get(*path)).min().cloned()
    }

    fn hash(&mut self, path: &Path) -> io::Result<Sha256> {
        let mut hasher = Sha256Hasher::default();
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(hasher.finish());
            }
            self.bytes += read as u64;
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
    }
}

/// Returns the largest file below `top`, relative to it; empty if `top` is the file itself.
pub(super) fn largest(top: &Path) -> io::Result<Option<PathBuf>> {
    let mut largest: Option<(u64, PathBuf)> = None;
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let at = if path.as_os_str().is_empty() { top.to_owned() } else { top.join(&path) };
        let metadata = fs::symlink_metadata(&at)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&at)? {
                waiting.push(path.join(entry?.file_name()));
            }
        } else if metadata.is_file()
            && largest.as_ref().is_none_or(|(size, _)| metadata.len() > *size)
        {
            largest = Some((metadata.len(), path));
        }
    }
    Ok(largest.map(|(_, path)| path))
}

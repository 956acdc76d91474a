//! A file that is opened, and recovered if need be, without being written: changes stay in memory.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dfs_metadata::engine::EngineError;
use redb::StorageBackend;

use super::fault::open_error;
use super::file::{FILE, LOCK, in_use};

const BLOCK: usize = 4_096;
/// Changed blocks that are kept in memory, at most: recovery writes few.
const BLOCKS_MAX: usize = 65_536;

/// The file of a store with changes on top, in a directory that is locked while this exists.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    _lock: Option<File>,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    /// Length of the whole.
    length: u64,
    /// Bytes of the file that still count: it was not truncated below.
    base: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
}

impl Overlay {
    /// Opens the file of the store in `folder`; `None` if there is none.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, EngineError> {
        let lock = lock(folder)?;
        let path = folder.join(FILE);
        let io = |error: io::Error| open_error(&path.display(), &error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io)?,
        };
        let length = file.metadata().map_err(io)?.len();
        if length == 0 {
            let path = path.display();
            return Err(EngineError::Damaged(format!("{path} is empty: it was truncated")));
        }
        let changed = Changed { length, base: length, blocks: BTreeMap::new() };
        Ok(Some(Self { file, _lock: lock, changed: Mutex::new(changed) }))
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads bytes of the file itself; zeros where it has none.
    fn read_base(&self, base: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = base.saturating_sub(offset).min(out.len() as u64) as usize;
        let (before, after) = out.split_at_mut(there);
        after.fill(0);
        self.file.read_exact_at(before, offset)
    }
}

/// Locks the directory, unless no process ever has.
fn lock(folder: &Path) -> Result<Option<File>, EngineError> {
    let path = folder.join(LOCK);
    let io = |error: io::Error| open_error(&path.display(), &error);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(in_use(folder)),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Splits a range into the blocks that it touches: number, offset in it, and position in the range.
fn blocks(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == length {
            return None;
        }
        let from = offset + at as u64;
        let within = (from % BLOCK as u64) as usize;
        let end = length.min(at + BLOCK - within);
        let range = at..end;
        at = end;
        Some((from / BLOCK as u64, within, range))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed();
        if offset.saturating_add(out.len() as u64) > changed.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_base(changed.base, offset, out)?;
        for (block, within, range) in blocks(offset, out.len()) {
            if let Some(bytes) = changed.blocks.get(&block) {
                let length = range.len();
                out[range].copy_from_slice(&bytes[within..within + length]);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changed = self.changed();
        if length < changed.length {
            changed.base = changed.base.min(length);
            // What is there later is zero.
            let whole = length.div_ceil(BLOCK as u64);
            drop(changed.blocks.split_off(&whole));
            if let Some(last) = changed.blocks.get_mut(&(length / BLOCK as u64)) {
                last[(length % BLOCK as u64) as usize..].fill(0);
            }
        }
        changed.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed();
        for (block, within, range) in blocks(offset, data.len()) {
            if !changed.blocks.contains_key(&block) {
                if changed.blocks.len() == BLOCKS_MAX {
                    let what = "its recovery changes too much to be tried in memory";
                    return Err(io::Error::other(what));
                }
                let mut bytes = Box::new([0; BLOCK]);
                self.read_base(changed.base, block * BLOCK as u64, &mut bytes[..])?;
                changed.blocks.insert(block, bytes);
            }
            if let Some(bytes) = changed.blocks.get_mut(&block) {
                bytes[within..within + range.len()].copy_from_slice(&data[range]);
            }
        }
        changed.length = changed.length.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn changes_are_read_back_and_the_file_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Overlay::open(folder.path()).unwrap().is_none(), "nothing is created");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let (path, content) = (folder.path().join(FILE), vec![1; 3 * BLOCK + 10]);
        fs::write(&path, &content).unwrap();
        let overlay = Overlay::open(folder.path()).unwrap().unwrap();
        let mut model = content.clone();
        let read = |offset: usize, length: usize| {
            let mut out = vec![9; length];
            overlay.read(offset as u64, &mut out).map(|()| out)
        };
        let write = |model: &mut Vec<u8>, offset: usize, length: usize| {
            let data = vec![7; length];
            overlay.write(offset as u64, &data).unwrap();
            model.resize(model.len().max(offset + length), 0);
            model[offset..offset + length].copy_from_slice(&data);
        };
        write(&mut model, BLOCK - 5, 10);
        write(&mut model, 3 * BLOCK, 5_000);
        assert_eq!(read(0, model.len()).unwrap(), model);
        for length in [2 * BLOCK + 100, 6 * BLOCK, 10, BLOCK] {
            overlay.set_len(length as u64).unwrap();
            model.resize(length, 0);
            assert_eq!(read(0, length).unwrap(), model, "{length}");
            assert!(read(1, length).is_err(), "past the end");
        }
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

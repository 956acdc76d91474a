//! Opens a store: identity of the disks, and the chunks sealed on them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_types::{ChunkId, DiskId, NodeId, NodeSecret, Random, RegistrationNumber};

use super::agreement::Agreement;
use super::identity_file::{DiskIdentity, LOCK_NAME, is_empty_disk};
use super::index::{Entry, Index, Place};
use super::record::{Binding, HEAD, Head, Layout, State};
use super::scan::scan;
use super::segments::{Segments, parse_name};
use super::space::{DiskSpace, FileSystems, Limits};
use super::volume::{Disk, Shared, Stamps, is_no_space};
use super::{CHUNKS, Config, SEGMENTS};
use crate::fs::PAGE;
use crate::{Fs, FsLock, Identity, OpenError, Opening, Space};

/// A store whose identity is known, before the disks are scanned.
pub(super) struct Opened {
    pub(super) identity: Identity,
    pub(super) settled: RegistrationNumber,
    pub(super) starts: u64,
    pub(super) index: Arc<Index>,
    pub(super) disks: Vec<Arc<Disk>>,
}

struct Folder {
    lock: Box<dyn FsLock>,
    capacity: Option<u64>,
}

/// Locks the data directories and determines the identity of the node.
pub(super) fn open(
    config: &Config,
    fs: &Arc<dyn Fs>,
    random: &Arc<dyn Random>,
) -> Result<Opened, OpenError> {
    if config.disks.is_empty() {
        return Err(OpenError::NoDisks);
    }
    let mut folders = Vec::new();
    let mut found = Vec::new();
    let mut parents_of_new = BTreeSet::new();
    for disk in &config.disks {
        let lock = take(&**fs, &disk.folder)?;
        let identity = DiskIdentity::read(&**fs, &disk.folder, config.level)?;
        if identity.is_none() {
            let is_empty = is_empty_disk(&**fs, &disk.folder);
            if !is_empty.map_err(failed("listing", &disk.folder))? {
                return Err(OpenError::NotEmpty(disk.folder.clone()));
            }
            parents_of_new.extend(parent_of(&disk.folder));
        }
        folders.push(Folder { lock, capacity: disk.capacity });
        found.push((disk.folder.clone(), identity));
    }
    let agreed = Agreement::of(&found)?;
    for parent in parents_of_new {
        fs.sync_dir(parent).map_err(failed("syncing", parent))?;
    }
    let new = || (NodeId::random(&**random), NodeSecret::random(&**random));
    let (node, secret) = agreed.node.unwrap_or_else(new);
    let starts = agreed.starts + 1;
    let shared = Shared {
        fs: Arc::clone(fs),
        index: Arc::new(Index::default()),
        stamps: Arc::new(Stamps::new(starts)),
    };
    let mut disks = Vec::new();
    let mut file_systems = FileSystems::default();
    let mut first_error = None;
    for (number, (folder, (path, old))) in folders.into_iter().zip(found).enumerate() {
        let id = old.map_or_else(|| DiskId::random(&**random), |old| old.disk);
        let Agreement { registration, settled, level, .. } = agreed;
        let identity =
            DiskIdentity { node, secret, disk: id, starts, level, registration, settled };
        let is_included = old.is_none_or(|old| agreed.includes(&old));
        let nothing = Space { total: 0, available: 0, file_system: None };
        let file_system = file_systems.get(fs.space(&path).unwrap_or(nothing));
        let space = DiskSpace::new(Limits::new(config, folder.capacity), file_system);
        let segments = Segments::new(config.segment_bytes, Arc::clone(random));
        let number = number as u16;
        let disk = Disk::new(number, id, path, &shared, space, segments, folder.lock);
        if !is_included {
            disk.fail(&"it holds an image older than the node's last registration");
        } else if let Err(error) = prepare(&disk, &identity) {
            let (action, path) = ("writing the identity of", disk.folder.clone());
            if is_no_space(&error) {
                // Without its new identity, this disk would be excluded at the next registration.
                return Err(OpenError::Io { action, path, source: error });
            }
            disk.fail(&error);
            first_error.get_or_insert(OpenError::Io { action, path, source: error });
        }
        disks.push(Arc::new(disk));
    }
    if let Some(error) = first_error.filter(|_| disks.iter().all(|disk| disk.is_failed())) {
        return Err(error);
    }
    let Agreement { registration, settled, level, .. } = agreed;
    let identity = Identity { node, secret, registration, level };
    Ok(Opened { identity, settled, starts, index: shared.index, disks })
}

/// Creates a directory if necessary and locks it for this process.
fn take(fs: &dyn Fs, folder: &Path) -> Result<Box<dyn FsLock>, OpenError> {
    make_folder(fs, folder).map_err(failed("creating directory", folder))?;
    fs.lock(&folder.join(LOCK_NAME)).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse(folder.to_owned()),
        _ => OpenError::Io { action: "locking", path: folder.to_owned(), source },
    })
}

/// Creates a directory and its parents. Its own name is not durable yet: see [`open`].
fn make_folder(fs: &dyn Fs, folder: &Path) -> io::Result<()> {
    match (fs.create_dir(folder), folder.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(fs, parent)?;
            fs.sync_dir(parent_of(parent).unwrap_or(parent))?;
            fs.create_dir(folder)
        }
        (made, _) => made,
    }
}

/// Returns the parent of a directory, even of a relative path with one component.
fn parent_of(folder: &Path) -> Option<&Path> {
    let parent = folder.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Writes the identity of this life of the store, durably, before anything else is written.
fn prepare(disk: &Disk, identity: &DiskIdentity) -> io::Result<()> {
    disk.fs.create_dir(&disk.folder.join(CHUNKS))?;
    disk.fs.create_dir(&disk.folder.join(SEGMENTS))?;
    identity.write(&*disk.fs, &disk.folder)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

/// Finds the sealed replicas on a disk, and removes everything else. An unreadable disk is taken
/// out of service.
pub(super) fn recover(disk: &Disk) -> Vec<(ChunkId, Entry)> {
    let mut replicas = Vec::new();
    if disk.is_failed() {
        return replicas;
    }
    let found =
        recover_files(disk, &mut replicas).and_then(|()| recover_segments(disk, &mut replicas));
    if let Err(error) = found {
        disk.fail(&error);
        replicas.clear();
    }
    disk.refresh_space();
    replicas
}

fn recover_files(disk: &Disk, replicas: &mut Vec<(ChunkId, Entry)>) -> io::Result<()> {
    let chunks = disk.folder.join(CHUNKS);
    for shard in disk.fs.list(&chunks)? {
        let shard = chunks.join(shard);
        for name in disk.fs.list(&shard)? {
            let path = shard.join(&name);
            if name.strip_suffix(".part").is_some() {
                disk.fs.remove(&path)?;
                continue;
            }
            let chunk = name.strip_suffix(".v1").and_then(|id| id.parse::<ChunkId>().ok());
            let Some(chunk) = chunk.filter(|chunk| disk.chunk_path(*chunk) == path) else {
                tracing::warn!(file = %path.display(), "ignoring a file that is not a chunk of a known format");
                continue;
            };
            let head = read_file_head(disk, &path)?.filter(|head| head.chunk == chunk);
            if let Some(head) = head {
                replicas.push((chunk, Entry::new(disk.number, Place::File, &head)));
            } else {
                tracing::error!(file = %path.display(), "the head is damaged: the chunk is not served");
            }
        }
    }
    Ok(())
}

fn read_file_head(disk: &Disk, path: &Path) -> io::Result<Option<Head>> {
    let file = disk.fs.open(path, Opening::Existing)?;
    let length = file.length()?;
    let Some(at) = length.checked_sub(PAGE as u64) else { return Ok(None) };
    let head = Head::decode(&file.read_at(at, HEAD)?, Binding::default());
    let fits = |head: &Head| Layout::of_file(head.path_length, head.seal.length).end == length;
    Ok(head.filter(fits))
}

fn recover_segments(disk: &Disk, replicas: &mut Vec<(ChunkId, Entry)>) -> io::Result<()> {
    let folder = disk.segments_path();
    let mut segments = Vec::new();
    for name in disk.fs.list(&folder)? {
        if let Some((number, salt)) = parse_name(&name) {
            segments.push((number, salt, folder.join(name)));
        } else {
            tracing::warn!(segment = %name, "ignoring a file that is not a segment of a known format");
        }
    }
    let last = segments.iter().map(|(number, ..)| *number).max();
    for (number, salt, path) in segments {
        let found = recover_segment(disk, &path, salt, Some(number) == last)?;
        disk.segments.add(number, salt, found.len() as u32);
        replicas.extend(found.into_iter().map(|(at, head)| {
            let place = Place::Record { segment: number, page: (at / PAGE as u64) as u32 };
            (head.chunk, Entry::new(disk.number, place, &head))
        }));
    }
    Ok(())
}

/// Returns the sealed replicas in a segment. Everything else in it is removed.
fn recover_segment(
    disk: &Disk,
    path: &Path,
    salt: u64,
    is_last: bool,
) -> io::Result<Vec<(u64, Head)>> {
    let file = disk.fs.open(path, Opening::Existing)?;
    let found = scan(&*file, salt, is_last)?;
    if found.replicas.is_empty() {
        disk.fs.remove(path)?;
        return Ok(Vec::new());
    }
    // From now on the segment is no longer the last one, so its tail will not be checked again.
    for (at, head) in &found.torn {
        let head = Head { state: State::Dead, ..*head };
        file.write_at(*at, &[head.encode(Binding { salt, offset: *at })])?;
    }
    if !found.torn.is_empty() {
        file.sync()?;
    }
    for (at, head) in found.torn.iter().chain(&found.dead) {
        file.punch(*at, Layout::of_record(*at, head.path_length, head.seal.length).end - at)?;
    }
    let (unknown, left_over): (Vec<u64>, Vec<u64>) =
        found.strays.iter().partition(|at| !is_last || **at < found.durable_to);
    for at in left_over {
        file.punch(at, PAGE as u64)?;
    }
    if !unknown.is_empty() {
        let pages = unknown.len();
        tracing::error!(segment = %path.display(), pages, "pages without a record: their heads are damaged");
    }
    Ok(found.replicas)
}

//! Opens a store: the identity of its disks, and the state of each.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_types::{DiskId, Level, NodeId, NodeSecret, Random, RegistrationNumber};

use super::Config;
use super::agreement::Agreement;
use super::failure::Condition;
use super::identity_file::{DiskIdentity, KnownDisk, LOCK_NAME, is_empty_disk};
use super::index::Index;
use super::reopen::{EMPTY, HANGS};
use super::segments::Segments;
use super::space::{DiskSpace, FileSystems, Limits};
use super::stamps::Stamps;
use super::volume::{Disk, Opened, Shared};
use super::watchdog::Watch;
use crate::identity::number_of;
use crate::thread_pool::disk_pool;
use crate::{Fs, FsLock, HookedFs, Identity, OpenError, Pool, Registration, Space};

/// A directory of the configuration, with the access to it.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) capacity: Option<u64>,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) watch: Arc<Watch>,
    pub(super) pool: Pool,
}

/// Space of a disk that is not in service.
const NO_SPACE: Space = Space { total: 0, available: 0, file_system: None };

/// A locked directory.
pub(super) struct Found {
    pub(super) lock: Box<dyn FsLock>,
    space: Space,
    /// `None` in an empty directory.
    pub(super) identity: Option<DiskIdentity>,
}

/// A store whose identity is known, before the disks are scanned.
pub(super) struct Agreed {
    pub(super) identity: Identity,
    pub(super) settled: Option<Registration>,
    pub(super) known: Vec<KnownDisk>,
    pub(super) index: Arc<Index>,
    pub(super) disks: Vec<Arc<Disk>>,
    /// Those of them that had no identity yet.
    pub(super) new: Vec<Arc<Disk>>,
}

impl Folder {
    /// Returns the directories of a configuration, each with a pool of its own.
    pub(super) fn all(config: &Config, fs: &Arc<dyn Fs>, pool: &Pool) -> Vec<Self> {
        let folder = |(number, disk): (usize, &super::DiskConfig)| {
            let pool = pool.another(&disk_pool(number));
            let (slow_after, hung_after) = (config.slow_after, config.hung_after);
            let watch = Arc::new(Watch::new(pool.clone(), slow_after, hung_after));
            Self {
                path: disk.folder.clone(),
                capacity: disk.capacity,
                fs: Arc::new(HookedFs::new(Arc::clone(fs), Arc::clone(&watch))),
                watch,
                pool,
            }
        };
        config.disks.iter().enumerate().map(folder).collect()
    }

    /// Locks the directory, which is created if necessary, and reads its identity.
    pub(super) fn take(fs: &dyn Fs, path: &Path, newest: Level) -> Result<Found, OpenError> {
        make_folder(fs, path).map_err(failed("creating directory", path))?;
        let lock = fs.lock(&path.join(LOCK_NAME)).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse(path.to_owned()),
            _ => OpenError::Io { action: "locking", path: path.to_owned(), source },
        })?;
        let identity = DiskIdentity::read(fs, path, newest)?;
        if identity.is_none() && !is_empty_disk(fs, path).map_err(failed("listing", path))? {
            return Err(OpenError::NotEmpty(path.to_owned()));
        }
        let space = fs.space(path).unwrap_or(NO_SPACE);
        Ok(Found { lock, space, identity })
    }
}

/// Determines the identity of the node from the directories that could be opened, and the state of each
/// disk.
///
/// Fails if no directory says which node this is, unless all of them are empty, and if disks do not
/// belong together.
pub(super) fn agree(
    config: &Config,
    folders: Vec<Folder>,
    found: Vec<Result<Found, OpenError>>,
    random: &Arc<dyn Random>,
) -> Result<Agreed, OpenError> {
    let identities: Vec<_> = folders
        .iter()
        .zip(&found)
        .filter_map(|(folder, found)| Some((folder.path.clone(), found.as_ref().ok()?)))
        .map(|(path, found)| (path, found.identity.clone()))
        .collect();
    let agreed = Agreement::of(&identities)?;
    let mut found = found;
    if agreed.node.is_none()
        && let Some(at) = found.iter().position(Result::is_err)
        && let Err(error) = found.swap_remove(at)
    {
        return Err(error);
    }
    let new = || (NodeId::random(&**random), NodeSecret::random(&**random));
    let (node, secret) = agreed.node.unwrap_or_else(new);
    let starts = agreed.starts + 1;
    let index = Arc::new(Index::new(folders.len() as u16));
    let stamps = Arc::new(Stamps::new(starts));
    let mut file_systems = FileSystems::default();
    let (mut disks, mut new_disks) = (Vec::new(), Vec::new());
    for (number, (folder, found)) in folders.into_iter().zip(found).enumerate() {
        let recorded = agreed.recorded_in(&folder.path);
        let space = found.as_ref().map_or(NO_SPACE, |found| found.space);
        let (id, condition, lock) = match found {
            Ok(Found { lock, identity: Some(old), .. }) if agreed.includes(&old) => {
                (old.disk, Condition::Current, Some(lock))
            }
            Ok(Found { lock, identity: Some(old), .. }) => {
                let why = missed(number_of(agreed.settled));
                tracing::warn!(disk = %folder.path.display(), "the disk is returning: {why}");
                let registration = old.registration;
                (old.disk, Condition::Returning { registration, why }, Some(lock))
            }
            Ok(Found { lock, identity: None, .. }) => match recorded {
                Some(id) => {
                    tracing::error!(
                        disk = %folder.path.display(), %id,
                        "the directory is empty, but a disk of this node was in it: not in service"
                    );
                    (id, Condition::Missing(EMPTY.to_owned()), None)
                }
                None => (DiskId::random(&**random), Condition::Current, Some(lock)),
            },
            Err(error @ (OpenError::Hung(_) | OpenError::InUse(_))) => {
                let id = recorded.unwrap_or_else(|| DiskId::random(&**random));
                tracing::error!(disk = %folder.path.display(), "the disk is not in service yet: {error}");
                let why = match error {
                    OpenError::Hung(_) => HANGS.to_owned(),
                    error => error.to_string(),
                };
                (id, Condition::Missing(why), None)
            }
            Err(error) => {
                // An id that is not known is chosen for display only: a failed disk never registers.
                let id = recorded.unwrap_or_else(|| DiskId::random(&**random));
                let why = dfs_types::with_causes(&error);
                tracing::error!(
                    disk = %folder.path.display(),
                    "the disk cannot be opened and is not in service: {why}"
                );
                (id, Condition::Failed(why), None)
            }
        };
        let is_new = lock.is_some() && recorded.is_none();
        let opened = Opened { id, lock, condition };
        let space = file_systems.get(space);
        let space = DiskSpace::new(Limits::new(config, folder.capacity), space);
        let segments = Segments::new(config.segment_bytes, Arc::clone(random));
        let shared = Shared { index: Arc::clone(&index), stamps: Arc::clone(&stamps) };
        let disk = Disk::new(number as u16, opened, folder, shared, space, segments);
        let disk = Arc::new(disk);
        if is_new {
            new_disks.push(Arc::clone(&disk));
        }
        disks.push(disk);
    }
    let Agreement { registration, settled, level, known, .. } = agreed;
    let identity = Identity { node, secret, registration, level, start: starts };
    Ok(Agreed { identity, settled, known, index, disks, new: new_disks })
}

/// Returns why a disk that missed the registration with this number is returning.
pub(super) fn missed(settled: RegistrationNumber) -> String {
    format!(
        "it is older than registration {settled} of its node; what it holds is served, and the coordinator compares it with its records"
    )
}

/// Makes the names of new disks durable. A disk whose parent cannot be synced is taken out of
/// service.
pub(super) async fn sync_parents(new: Vec<Arc<Disk>>) {
    let mut by_parent = BTreeMap::<PathBuf, Vec<Arc<Disk>>>::new();
    for disk in new {
        if let Some(parent) = parent_of(&disk.folder) {
            by_parent.entry(parent.to_owned()).or_default().push(disk);
        }
    }
    for (parent, disks) in by_parent {
        let fs = Arc::clone(&disks[0].fs);
        let synced = disks[0].run(move || fs.sync_dir(&parent)).await;
        let error = match synced {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        for disk in disks {
            disk.fail(&format!("its name cannot be made durable: {error}"));
        }
    }
}

/// Creates a directory and its parents. Its own name is not durable yet: see [`sync_parents`].
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

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

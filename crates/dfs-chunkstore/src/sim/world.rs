//! State of a simulated file system.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dfs_types::Random;

use super::content::Content;
use super::{Operation, Synced};
use crate::fs::{PAGE, Space};

/// The error kind for no space, regardless of its errno.
const NO_SPACE: io::ErrorKind = io::ErrorKind::StorageFull;

pub(super) type FileId = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(FileId),
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
enum Change {
    Link(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

/// Reported and actual outcome of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Kept,
    /// Reports success but did nothing.
    Broken,
    /// Reports failure but completed.
    Denied,
}

impl Promise {
    fn answer(self) -> io::Result<()> {
        if self == Self::Denied { Err(NO_SPACE.into()) } else { Ok(()) }
    }
}

#[derive(Debug, Clone)]
struct Fault {
    path: PathBuf,
    operation: Operation,
    errno: i32,
}

/// The durable state of a folder at some moment.
#[derive(Debug, Clone)]
pub struct Image {
    folder: PathBuf,
    /// Names in it, with the content of files.
    names: BTreeMap<PathBuf, Option<Content>>,
}

#[derive(Clone)]
pub(super) struct World {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    changes: Vec<Change>,
    files: BTreeMap<FileId, Content>,
    next_file: FileId,
    locks: BTreeSet<PathBuf>,
    /// Incremented by each crash: files and locks of an earlier life are invalid.
    pub(super) life: u64,
    pub(super) capacity: u64,
    pub(super) operations: u64,
    /// Changes that no operation made.
    pub(super) interventions: u64,
    pub(super) syncs: u64,
    pub(super) stop_at: Option<u64>,
    pub(super) ignored_sync: Option<u64>,
    pub(super) full_sync: Option<Synced>,
    is_stopped: bool,
    faults: Vec<Fault>,
}

impl World {
    pub(super) fn new() -> Self {
        let root = BTreeMap::from([(PathBuf::from("/"), Node::Folder)]);
        Self {
            names: root.clone(),
            durable_names: root,
            changes: Vec::new(),
            files: BTreeMap::new(),
            next_file: 0,
            locks: BTreeSet::new(),
            life: 0,
            capacity: 1 << 40,
            operations: 0,
            interventions: 0,
            syncs: 0,
            stop_at: None,
            ignored_sync: None,
            full_sync: None,
            is_stopped: false,
            faults: Vec::new(),
        }
    }

    /// Counts an operation and fails if it must not proceed.
    pub(super) fn enter(&mut self, path: &Path, operation: Operation) -> io::Result<()> {
        if operation != Operation::Read {
            self.is_stopped |= self.stop_at == Some(self.operations);
            self.operations += 1;
        }
        if self.is_stopped {
            return Err(io::Error::other("the simulated machine has stopped"));
        }
        let fault =
            self.faults.iter().find(|f| f.operation == operation && path.starts_with(&f.path));
        fault.map_or(Ok(()), |fault| Err(io::Error::from_raw_os_error(fault.errno)))
    }

    /// Returns the outcome of the next sync. Counts it if it guarantees anything.
    fn next_sync(&mut self, of: Synced) -> Promise {
        if self.full_sync.take_if(|full| *full == of).is_some() {
            return Promise::Denied;
        }
        self.syncs += 1;
        if self.ignored_sync == Some(self.syncs - 1) { Promise::Broken } else { Promise::Kept }
    }

    pub(super) fn fail(&mut self, path: &Path, operation: Operation, errno: i32) {
        self.faults.push(Fault { path: path.to_owned(), operation, errno });
    }

    pub(super) fn heal(&mut self) {
        self.faults.clear();
    }

    pub(super) fn lock(&mut self, path: &Path) -> io::Result<()> {
        self.enter(path, Operation::Write)?;
        let parent = path.parent().unwrap_or(path);
        if !self.names.contains_key(parent) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.locks.insert(path.to_owned()) {
            Ok(())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    pub(super) fn unlock(&mut self, path: &Path) {
        self.locks.remove(path);
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<FileId> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Returns whether a file has a name.
    pub(super) fn has_name(&self, file: FileId) -> bool {
        self.names.values().any(|node| *node == Node::File(file))
    }

    pub(super) fn content(&mut self, file: FileId) -> io::Result<&mut Content> {
        self.files.get_mut(&file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<FileId> {
        self.enter(path, Operation::Write)?;
        if let Ok(file) = self.file(path) {
            self.content(file)?.set_len(0);
            return Ok(file);
        }
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Content::default());
        self.link(path, Node::File(file))?;
        Ok(file)
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.enter(path, Operation::Write)?;
        match self.names.get(path) {
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            None => self.link(path, Node::Folder),
        }
    }

    fn link(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let parent = path.parent().and_then(|parent| self.names.get(parent));
        if parent != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.names.insert(path.to_owned(), node);
        self.changes.push(Change::Link(path.to_owned(), node));
        Ok(())
    }

    pub(super) fn list(&mut self, path: &Path) -> io::Result<Vec<String>> {
        self.enter(path, Operation::Read)?;
        if self.names.get(path) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = self.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_str()?.to_owned())).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter(from, Operation::Write)?;
        let node = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.names.insert(to.to_owned(), node);
        self.changes.push(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.enter(path, Operation::Write)?;
        self.file(path)?;
        self.names.remove(path);
        self.changes.push(Change::Unlink(path.to_owned()));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let promise = self.next_sync(Synced::Folder);
        self.enter(path, Operation::Sync)?;
        if self.names.get(path) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if promise != Promise::Broken {
            let (inside, others): (Vec<_>, Vec<_>) =
                self.changes.drain(..).partition(|change| change.path().parent() == Some(path));
            self.changes = others;
            for change in inside {
                change.apply(&mut self.durable_names);
            }
            self.forget_nameless();
        }
        promise.answer()
    }

    pub(super) fn write(&mut self, path: &Path, file: FileId, at: u64, b: &[u8]) -> io::Result<()> {
        self.enter(path, Operation::Write)?;
        let (length, end) = (self.content(file)?.length(), at + b.len() as u64);
        let is_inside = |offset: u64| offset < length && !offset.is_multiple_of(PAGE as u64);
        if is_inside(at) || is_inside(end) {
            // A page is read before a part of it is overwritten.
            self.enter(path, Operation::Read)?;
        }
        let room = self.capacity.saturating_sub(self.taken()) / PAGE as u64;
        let content = self.content(file)?;
        if content.new_pages(at, b.len()) <= room {
            content.write(at, b);
            return Ok(());
        }
        // As much as fits is written, like a real file system.
        let mut done = 0;
        let mut room = room;
        while done < b.len() {
            let step = (PAGE - (at as usize + done) % PAGE).min(b.len() - done);
            let wanted = content.new_pages(at + done as u64, step);
            if wanted > room {
                break;
            }
            room -= wanted;
            content.write(at + done as u64, &b[done..done + step]);
            done += step;
        }
        Err(NO_SPACE.into())
    }

    pub(super) fn read(
        &mut self,
        path: &Path,
        file: FileId,
        at: u64,
        n: usize,
    ) -> io::Result<Bytes> {
        self.enter(path, Operation::Read)?;
        Ok(self.content(file)?.read(at, n))
    }

    pub(super) fn sync(&mut self, path: &Path, file: FileId) -> io::Result<()> {
        let promise = self.next_sync(Synced::File);
        let entered = self.enter(path, Operation::Sync);
        let is_stopped = self.is_stopped;
        let content = self.content(file)?;
        match entered {
            Ok(()) if promise == Promise::Broken => {}
            Ok(()) => content.sync(),
            // Without effect, although written data may have reached the disk anyway.
            Err(_) if is_stopped => {}
            Err(_) => content.fail_sync(),
        }
        entered.and_then(|()| promise.answer())
    }

    pub(super) fn space(&self) -> Space {
        let available = self.capacity.saturating_sub(self.taken());
        Space { total: self.capacity, available, file_system: None }
    }

    /// Returns the bytes of files that have a name, or had one when last made durable.
    fn taken(&self) -> u64 {
        self.files.values().map(Content::taken).sum()
    }

    /// Forgets files without a name.
    fn forget_nameless(&mut self) {
        let mut named = BTreeSet::new();
        let pending = self.changes.iter().filter_map(|change| match change {
            Change::Link(_, node) => Some(node),
            Change::Rename(..) | Change::Unlink(_) => None,
        });
        for node in self.names.values().chain(self.durable_names.values()).chain(pending) {
            if let Node::File(file) = node {
                named.insert(*file);
            }
        }
        self.files.retain(|file, _| named.contains(file));
    }

    pub(super) fn wipe(&mut self, folder: &Path) {
        self.interventions += 1;
        let stays = |path: &Path| path == folder || !path.starts_with(folder);
        self.names.retain(|path, _| stays(path));
        self.durable_names.retain(|path, _| stays(path));
        self.changes.retain(|change| stays(change.path()));
        self.forget_nameless();
    }

    /// Returns the files below a folder, with their lengths.
    pub(super) fn files(&self, folder: &Path) -> Vec<(PathBuf, u64)> {
        let inside = self.names.iter().filter(|(path, _)| path.starts_with(folder));
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(file) => Some((path.clone(), self.files.get(file)?.length())),
            Node::Folder => None,
        };
        inside.filter_map(file).collect()
    }

    pub(super) fn lose(&mut self, path: &Path) {
        self.interventions += 1;
        self.names.remove(path);
        self.durable_names.remove(path);
        self.changes.retain(|change| change.path() != path);
        self.forget_nameless();
    }

    pub(super) fn image(&self, folder: &Path) -> Image {
        let inside = self
            .durable_names
            .iter()
            .filter(|(path, _)| path.starts_with(folder) && *path != folder);
        let kept = inside.map(|(path, node)| {
            let content = match node {
                Node::File(file) => self.files.get(file).map(Content::at_rest),
                Node::Folder => None,
            };
            (path.clone(), content)
        });
        Image { folder: folder.to_owned(), names: kept.collect() }
    }

    pub(super) fn restore(&mut self, image: &Image) {
        self.wipe(&image.folder);
        for (path, content) in &image.names {
            let node = match content {
                Some(content) => {
                    let file = self.next_file;
                    self.next_file += 1;
                    self.files.insert(file, content.clone());
                    Node::File(file)
                }
                None => Node::Folder,
            };
            self.names.insert(path.clone(), node);
            self.durable_names.insert(path.clone(), node);
        }
    }

    pub(super) fn crash(&mut self, random: Option<&dyn Random>) {
        let kept = random.map_or(0, |random| random.below(self.changes.len() as u64 + 1));
        for change in std::mem::take(&mut self.changes).into_iter().take(kept as usize) {
            change.apply(&mut self.durable_names);
        }
        // An entry is useless if that of its directory is lost.
        let names = self.durable_names.clone();
        self.durable_names.retain(|name, _| name.ancestors().all(|up| names.contains_key(up)));
        self.names = self.durable_names.clone();
        self.forget_nameless();
        self.files.values_mut().for_each(|content| content.crash(random));
        self.ignored_sync = None;
        self.full_sync = None;
        self.end_process();
    }

    pub(super) fn end_process(&mut self) {
        self.locks.clear();
        self.life += 1;
        self.is_stopped = false;
        self.stop_at = None;
    }
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Rename(_, path) | Self::Unlink(path) => path,
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Link(path, node) => {
                names.insert(path, node);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(&from) {
                    names.insert(to, node);
                }
            }
            Self::Unlink(path) => {
                names.remove(&path);
            }
        }
    }
}

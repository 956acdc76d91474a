//! A toy model: the tree of one group, and sequential calls.

use std::collections::BTreeMap;

use dfs_types::ErrorCode;

use super::history::{Call, Path};

/// The directory of the group.
const TOP: u32 = u32::MAX;

/// A file or directory, identified by the operation that created it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    File(u32),
    Directory(u32, Entries),
}

pub(super) type Entries = BTreeMap<&'static str, Node>;

/// A reply of the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// A put has found its directory, and follows it from now on. Its reply is not known yet.
    Planned(u32),
    Node(Node),
    Listed(Entries),
    Failed(ErrorCode),
}

/// The complete tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Tree(Node);

impl Default for Tree {
    fn default() -> Self {
        Self(Node::Directory(TOP, Entries::new()))
    }
}

impl Node {
    fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(..))
    }

    fn entries(&mut self) -> Result<&mut Entries, ErrorCode> {
        match self {
            Self::Directory(_, entries) => Ok(entries),
            Self::File(_) => Err(ErrorCode::NotADirectory),
        }
    }

    fn number(&self) -> u32 {
        match self {
            Self::File(number) | Self::Directory(number, _) => *number,
        }
    }

    /// Returns the directory of this number in this subtree.
    fn directory(&mut self, wanted: u32) -> Option<&mut Entries> {
        let Self::Directory(number, entries) = self else { return None };
        if *number == wanted {
            return Some(entries);
        }
        entries.values_mut().find_map(|node| node.directory(wanted))
    }
}

impl Tree {
    /// Applies the operation `number`. A put has two steps, the second of which uses the directory
    /// that the first found.
    pub(super) fn apply(&mut self, number: u32, call: Call, planned: Option<u32>) -> Outcome {
        let done = match (call, planned) {
            (Call::MakeDirectory(path), _) => self.make_directory(number, path),
            (Call::Put(path), None) => self.plan(path),
            (Call::Put(path), Some(directory)) => self.confirm(number, path, directory),
            (Call::Rename(from, to), _) => self.rename(from, to),
            (Call::Delete { path, recursive }, _) => self.delete(path, recursive),
            (Call::Stat(path), _) => self.node(path).map(|node| Outcome::Node(node.clone())),
            (Call::List(path), _) => {
                let entries = self.node(path).and_then(Node::entries);
                entries.map(|entries| Outcome::Listed(entries.clone()))
            }
            (Call::Read(path), _) => match self.node(path) {
                Ok(Node::Directory(..)) => Err(ErrorCode::IsADirectory),
                found => found.map(|node| Outcome::Node(node.clone())),
            },
        };
        done.unwrap_or_else(Outcome::Failed)
    }

    fn node(&mut self, path: Path) -> Result<&mut Node, ErrorCode> {
        let mut node = &mut self.0;
        for name in path {
            node = node.entries()?.get_mut(name).ok_or(ErrorCode::NotFound)?;
        }
        Ok(node)
    }

    /// Returns the parent directory of a path, and its name there.
    fn parent(&mut self, path: Path) -> Result<(&mut Node, &'static str), ErrorCode> {
        let (name, above) = path.split_last().ok_or(ErrorCode::InvalidArgument)?;
        let parent = self.node(above)?;
        parent.entries()?;
        Ok((parent, *name))
    }

    fn make_directory(&mut self, number: u32, path: Path) -> Result<Outcome, ErrorCode> {
        let (parent, name) = self.parent(path)?;
        let entries = parent.entries()?;
        if entries.contains_key(name) {
            return Err(ErrorCode::AlreadyExists);
        }
        entries.insert(name, Node::Directory(number, Entries::new()));
        Ok(Outcome::Done)
    }

    fn plan(&mut self, path: Path) -> Result<Outcome, ErrorCode> {
        let (parent, name) = self.parent(path)?;
        if parent.entries()?.get(name).is_some_and(Node::is_directory) {
            return Err(ErrorCode::IsADirectory);
        }
        Ok(Outcome::Planned(parent.number()))
    }

    fn confirm(&mut self, number: u32, path: Path, directory: u32) -> Result<Outcome, ErrorCode> {
        let name = *path.last().ok_or(ErrorCode::InvalidArgument)?;
        let entries = self.0.directory(directory).ok_or(ErrorCode::NotFound)?;
        if entries.get(name).is_some_and(Node::is_directory) {
            return Err(ErrorCode::IsADirectory);
        }
        entries.insert(name, Node::File(number));
        Ok(Outcome::Done)
    }

    fn rename(&mut self, from: Path, to: Path) -> Result<Outcome, ErrorCode> {
        let moved = self.node(from)?.clone();
        self.parent(to)?;
        if to.len() > from.len() && to.starts_with(from) {
            return Err(ErrorCode::WouldCycle);
        }
        match self.node(to) {
            Ok(replaced) if *replaced == moved && from == to => return Ok(Outcome::Done),
            Ok(Node::File(_)) if moved.is_directory() => return Err(ErrorCode::NotADirectory),
            Ok(Node::Directory(..)) if !moved.is_directory() => {
                return Err(ErrorCode::IsADirectory);
            }
            Ok(Node::Directory(_, entries)) if !entries.is_empty() => {
                return Err(ErrorCode::NotEmpty);
            }
            _ => {}
        }
        // A path is no ancestor of its target: a directory that is replaced is empty.
        let (parent, name) = self.parent(from)?;
        parent.entries()?.remove(name);
        let (parent, name) = self.parent(to)?;
        parent.entries()?.insert(name, moved);
        Ok(Outcome::Done)
    }

    fn delete(&mut self, path: Path, recursive: bool) -> Result<Outcome, ErrorCode> {
        let node = self.node(path)?;
        if !recursive && node.entries().is_ok_and(|entries| !entries.is_empty()) {
            return Err(ErrorCode::NotEmpty);
        }
        let (parent, name) = self.parent(path)?;
        parent.entries()?.remove(name);
        Ok(Outcome::Done)
    }
}

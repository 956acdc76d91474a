//! Options of calls, with a default and a setter each, so that new ones break no caller.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dfs_types::{Attributes, Precondition, XattrName};

/// Callback with the number of bytes moved since its last call. It runs on threads of the runtime
/// and must not block.
pub type ProgressObserver = Arc<dyn Fn(u64) + Send + Sync>;

/// Options for writing a file.
///
/// ```
/// # use dfs_client::{Precondition, PutOptions};
/// let options = PutOptions::default().replication_factor(2).precondition(Precondition::Absent);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct PutOptions {
    /// Mode, owner, group, mtime.
    pub attributes: Attributes,
    /// Replicas of each byte; those of the directory when not set.
    pub replication_factor: Option<u32>,
    /// Maximum length of a chunk in bytes; 64 MiB when not set.
    pub chunk_size: Option<u64>,
    /// Condition on the name; without one, an existing file is replaced.
    pub precondition: Option<Precondition>,
    /// Extended attributes that the file has from the start.
    pub xattrs: BTreeMap<XattrName, Bytes>,
    /// Receives the progress of the bytes sent.
    pub progress: Option<ProgressObserver>,
}

impl PutOptions {
    /// Sets mode, owner, group and mtime of the file.
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.attributes = attributes;
        self
    }

    /// Sets the replicas of each byte, 1 or more; `None` for those of the directory.
    pub fn replication_factor(mut self, replicas: impl Into<Option<u32>>) -> Self {
        self.replication_factor = replicas.into();
        self
    }

    /// Sets the maximum length of a chunk: a multiple of 64 KiB, from 64 KiB to 1 GiB. `None` for
    /// 64 MiB.
    pub fn chunk_size(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.chunk_size = bytes.into();
        self
    }

    /// Sets the condition on the name: it must be free ([`Precondition::Absent`], else
    /// [`AlreadyExists`](dfs_types::ErrorCode::AlreadyExists)), or refer to a given inode,
    /// optionally in a given version (else [`Stale`](dfs_types::ErrorCode::Stale)).
    pub fn precondition(mut self, precondition: impl Into<Option<Precondition>>) -> Self {
        self.precondition = precondition.into();
        self
    }

    /// Sets the extended attributes that the file has from the moment it appears: at most 64, of 64
    /// KiB each, with 256 KiB of names and values. More is refused before any byte is sent,
    /// [`InvalidArgument`](dfs_types::ErrorCode::InvalidArgument). Those of a replaced file are
    /// dropped.
    pub fn xattrs(mut self, xattrs: BTreeMap<XattrName, Bytes>) -> Self {
        self.xattrs = xattrs;
        self
    }

    /// Sets the callback that receives the progress.
    pub fn progress(mut self, progress: ProgressObserver) -> Self {
        self.progress = Some(progress);
        self
    }
}

impl fmt::Debug for PutOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutOptions")
            .field("attributes", &self.attributes)
            .field("replication_factor", &self.replication_factor)
            .field("chunk_size", &self.chunk_size)
            .field("precondition", &self.precondition)
            .field("xattrs", &self.xattrs.keys())
            .finish_non_exhaustive()
    }
}

/// Options for reading a file.
///
/// ```
/// # use dfs_client::GetOptions;
/// let second_mebibyte = GetOptions::default().offset(1 << 20).length(1 << 20);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct GetOptions {
    /// Offset of the first byte.
    pub offset: u64,
    /// Maximum number of bytes; up to the end of the file when not set.
    pub length: Option<u64>,
    /// Receives the progress of the bytes read.
    pub progress: Option<ProgressObserver>,
}

impl GetOptions {
    /// Sets the offset of the first byte. Past the end of the file nothing is read.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the maximum number of bytes; `None` reads to the end.
    pub fn length(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.length = bytes.into();
        self
    }

    /// Sets the callback that receives the progress.
    pub fn progress(mut self, progress: ProgressObserver) -> Self {
        self.progress = Some(progress);
        self
    }
}

impl fmt::Debug for GetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOptions")
            .field("offset", &self.offset)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Options of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeleteOptions {
    /// True to delete a directory with everything below it.
    pub recursive: bool,
    /// True to free the space at once, without the possibility of an undelete.
    pub now: bool,
    /// Condition on the name.
    pub precondition: Option<Precondition>,
}

impl DeleteOptions {
    /// Deletes a directory with everything below it; otherwise it must be empty.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }

    /// Frees the space at once, without the possibility of an undelete.
    pub fn now(mut self, now: bool) -> Self {
        self.now = now;
        self
    }

    /// Sets the condition on the name: it must be free ([`Precondition::Absent`], else
    /// [`AlreadyExists`](dfs_types::ErrorCode::AlreadyExists)), or refer to a given inode,
    /// optionally in a given version (else [`Stale`](dfs_types::ErrorCode::Stale)).
    pub fn precondition(mut self, precondition: impl Into<Option<Precondition>>) -> Self {
        self.precondition = precondition.into();
        self
    }
}

/// Options for creating a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MakeDirectoryOptions {
    /// Mode, owner, group, mtime.
    pub attributes: Attributes,
    /// True to create missing parents, and to accept an existing directory.
    pub parents: bool,
}

impl MakeDirectoryOptions {
    /// Sets mode, owner, group and mtime.
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.attributes = attributes;
        self
    }

    /// Creates missing parents too, with the same attributes; an existing directory is accepted and
    /// keeps its attributes.
    pub fn parents(mut self, parents: bool) -> Self {
        self.parents = parents;
        self
    }
}

/// Options for creating a symlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SymlinkOptions {
    /// Owner, group, mtime.
    pub attributes: Attributes,
    /// True to replace an existing file or symlink.
    pub replace: bool,
}

impl SymlinkOptions {
    /// Sets owner, group and mtime.
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.attributes = attributes;
        self
    }

    /// Replaces an existing file or symlink.
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }
}

/// Options of a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RenameOptions {
    /// Condition on the new name; without one, an existing entry is replaced.
    pub precondition: Option<Precondition>,
    /// True to swap the two names.
    pub exchange: bool,
}

impl RenameOptions {
    /// Sets the condition on the new name: it must be free ([`Precondition::Absent`], else
    /// [`AlreadyExists`](dfs_types::ErrorCode::AlreadyExists)), or refer to a given inode,
    /// optionally in a given version (else [`Stale`](dfs_types::ErrorCode::Stale)).
    pub fn precondition(mut self, precondition: impl Into<Option<Precondition>>) -> Self {
        self.precondition = precondition.into();
        self
    }

    /// Swaps the two names, both of which must exist, instead of replacing the new one.
    pub fn exchange(mut self, exchange: bool) -> Self {
        self.exchange = exchange;
        self
    }
}

//! Destinations of copies and moves, as with `cp` and `mv`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use dfs_types::{DfsPath, ErrorCode, FileKind, Name};

use crate::context::Context;
use crate::error::{Error, Result, remote_path};

/// A destination in dfs: an existing directory, or a new name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The directory that receives sources under their own names.
    Into(DfsPath),
    /// The path of the single source.
    Named(DfsPath),
}

impl Destination {
    /// Looks up the last path. Several sources, or a trailing slash, require a directory.
    pub(crate) async fn look_up(text: &OsStr, sources: usize, cx: &Context) -> Result<Self> {
        let path = remote_path(text)?;
        let is_directory = match cx.client.stat(&path, dfs_client::Follow::Yes).await {
            Ok(stat) => stat.kind == FileKind::Directory,
            Err(error) if error.code() == ErrorCode::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        if is_directory {
            return Ok(Self::Into(path));
        }
        let says_directory = text.as_bytes().ends_with(b"/");
        if sources > 1 || says_directory {
            return Err(Error::new(
                ErrorCode::NotADirectory,
                format_args!("{path} is not a directory"),
            )
            .hint(format_args!("`dfs mkdir -p {path}` creates one")));
        }
        Ok(Self::Named(path))
    }

    /// Returns the destination of a source with this name.
    pub(crate) fn of_name(&self, name: &[u8]) -> Result<DfsPath> {
        match self {
            Self::Named(path) => Ok(path.clone()),
            Self::Into(directory) => {
                Name::new(name.to_vec()).and_then(|name| directory.join(&name)).map_err(|error| {
                    let name = crate::printable::printable(name);
                    Error::usage(format_args!("cannot name {name:?} in {directory}: {error}"))
                })
            }
        }
    }

    /// Returns the destination of a source with this path.
    pub(crate) fn of_remote(&self, from: &DfsPath) -> Result<DfsPath> {
        match from.split_last() {
            Some((_, name)) => self.of_name(name.as_bytes()),
            None => Err(Error::usage("the root directory cannot be moved or copied as a whole")
                .hint("name its entries")),
        }
    }
}

/// Splits the sources from the destination that follows them.
pub(crate) fn split_destination(mut paths: Vec<OsString>) -> Result<(Vec<OsString>, OsString)> {
    match paths.pop() {
        Some(last) if !paths.is_empty() => Ok((paths, last)),
        _ => Err(Error::usage("a source and a destination are required")
            .hint("the last path is the destination; --help shows examples")),
    }
}

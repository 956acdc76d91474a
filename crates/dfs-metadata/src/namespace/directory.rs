//! Making directories.

use dfs_types::{Attributes, DfsPath};

use super::{FileStat, Namespace, Repeat};
use crate::Error;

/// Makes a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeDirectory {
    /// Where.
    pub path: DfsPath,
    /// Makes missing parents, and is content with a directory that is there.
    pub parents: bool,
    /// Of each directory that is made.
    pub attributes: Attributes,
}

impl Namespace {
    /// Makes a directory. With many missing parents this takes several transactions, each of
    /// which makes some from the top down.
    pub async fn make_directory(
        &self,
        request: &MakeDirectory,
        repeat: Option<&Repeat>,
    ) -> Result<FileStat, Error> {
        let _ = (request, repeat);
        todo!()
    }
}

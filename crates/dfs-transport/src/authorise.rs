//! The one place that says who may do what.

use dfs_types::DfsPath;

/// Who is calling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Anyone who reaches the port. There are no others yet.
    Anonymous,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Looking at names, attributes or bytes.
    Read,
    /// Changing them.
    Write,
    /// Changing the cluster.
    Administer,
}

/// Why it may not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not allowed")]
pub struct Denied;

/// Whether `identity` may do `action` to `path`, or to the cluster when there is none.
pub fn allow(identity: Identity, action: Action, path: Option<&DfsPath>) -> Result<(), Denied> {
    let _ = (action, path);
    match identity {
        Identity::Anonymous => Ok(()),
    }
}

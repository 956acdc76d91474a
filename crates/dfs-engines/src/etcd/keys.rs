//! Layout of keys in etcd.
//!
//! ```text
//!  <prefix>/k/<key>              a key of the engine
//!  <prefix>/e/writer/<id>        marker of a handle, see `Writer`
//!  <prefix>/e/format             format of this layout
//!  <prefix>/e/compaction         written by each compaction, see `compaction`
//! ```
//! The prefix is a single word without a slash, so that no prefix contains another.

use bytes::Bytes;
use dfs_metadata::engine::prefix_end;

/// Converts keys of the engine to keys of etcd.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    /// Prefix of all keys of the engine.
    users: Bytes,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), users: Bytes::from(format!("{prefix}/k/")) }
    }

    /// Returns etcd's key for a key of the engine.
    pub(super) fn user(&self, key: &[u8]) -> Bytes {
        [&self.users, key].concat().into()
    }

    /// Returns the engine's key for a key of etcd.
    pub(super) fn strip(&self, key: &Bytes) -> Bytes {
        key.slice(self.users.len().min(key.len())..)
    }

    /// Returns the first key after all that start with a prefix of the engine.
    pub(super) fn end(&self, prefix: &[u8]) -> Bytes {
        let end = prefix_end(&[&self.users, prefix].concat());
        end.expect("the slash of `users` can be increased").into()
    }

    pub(super) fn marker(&self, id: u128) -> Bytes {
        Bytes::from(format!("{}/e/writer/{id:032x}", self.prefix))
    }

    pub(super) fn compaction(&self) -> Bytes {
        Bytes::from(format!("{}/e/compaction", self.prefix))
    }

    pub(super) fn format(&self) -> Bytes {
        Bytes::from(format!("{}/e/format", self.prefix))
    }

    /// Returns a key that never exists, for reading only the revision.
    pub(super) fn nothing(&self) -> Bytes {
        Bytes::from(format!("{}/e/nothing", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_before_its_neighbour() {
        let keys = Keys::new("p");
        for (prefix, end) in [
            (&b""[..], &b"p/k0"[..]),
            (b"a", b"p/k/b"),
            (b"a/", b"p/k/a0"),
            (b"a\xff", b"p/k/b"),
            (b"\xff\xff", b"p/k0"),
        ] {
            assert_eq!(keys.end(prefix), end, "{prefix:?}");
        }
        assert!(keys.marker(7) < keys.user(b"") && keys.compaction() < keys.user(b""));
        assert_eq!(keys.strip(&keys.user(b"a/b")), &b"a/b"[..]);
    }
}

//! Where things lie in etcd.
//!
//! ```text
//!  <prefix>/k/<key>              what the engine was given
//!  <prefix>/e/writer/<id>        marker of a handle, see `Writer`
//!  <prefix>/e/format             of this layout
//!  <prefix>/e/compaction         who compacts next, see `compaction`
//! ```
//! The prefix is one word without a slash, so that none lies within another.

use bytes::Bytes;
use dfs_metadata::engine::prefix_end;

/// Makes etcd's keys from those of the engine.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    /// The start of all keys that the engine was given.
    users: Bytes,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), users: Bytes::from(format!("{prefix}/k/")) }
    }

    /// A key of the engine, as etcd has it.
    pub(super) fn user(&self, key: &[u8]) -> Bytes {
        [&self.users, key].concat().into()
    }

    /// A key of etcd, as the engine has it.
    pub(super) fn strip(&self, key: &Bytes) -> Bytes {
        key.slice(self.users.len().min(key.len())..)
    }

    /// First key after all that start with a prefix of the engine.
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

    /// A key that never exists, to read nothing but the revision.
    pub(super) fn nothing(&self) -> Bytes {
        Bytes::from(format!("{}/e/nothing", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_neighbour() {
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

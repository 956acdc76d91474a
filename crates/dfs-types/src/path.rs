//! Paths: absolute, bytes rather than text, never normalised.

use std::fmt;

use bytes::Bytes;

/// Defects of a path or name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No slash at the start.
    #[error("a path must start with a slash")]
    NotAbsolute,
    /// More than [`DfsPath::MAX_LEN`] bytes.
    #[error("a path may have at most {max} bytes, not {0}", max = DfsPath::MAX_LEN)]
    TooLong(usize),
    /// A name of more than [`Name::MAX_LEN`] bytes.
    #[error("a name may have at most {max} bytes, not {0}", max = Name::MAX_LEN)]
    NameTooLong(usize),
    /// An empty name.
    #[error("a name must not be empty")]
    Empty,
    /// A name `.` or `..`.
    #[error("a name must not be \".\" or \"..\"")]
    Dots,
    /// A NUL byte.
    #[error("a name must not contain a NUL byte")]
    Nul,
    /// A slash within one name.
    #[error("a name must not contain a slash")]
    Slash,
}

impl PathError {
    /// Returns whether the length is the defect, which has a separate error code.
    pub fn is_too_long(self) -> bool {
        matches!(self, Self::TooLong(_) | Self::NameTooLong(_))
    }
}

/// One name in a directory: 1 to 255 bytes, no slash, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Bytes);

impl Name {
    /// Maximum length of a name in bytes.
    pub const MAX_LEN: usize = 255;

    /// Validates a name.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        Self::check(&bytes)?;
        Ok(Self(bytes))
    }

    fn check(bytes: &[u8]) -> Result<(), PathError> {
        match bytes {
            [] => Err(PathError::Empty),
            b"." | b".." => Err(PathError::Dots),
            _ if bytes.len() > Self::MAX_LEN => Err(PathError::NameTooLong(bytes.len())),
            _ if bytes.contains(&0) => Err(PathError::Nul),
            _ if bytes.contains(&b'/') => Err(PathError::Slash),
            _ => Ok(()),
        }
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes, shared.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lossless(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// An absolute path: `/`, or names each preceded by a slash. Without a trailing slash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DfsPath(Bytes);

impl DfsPath {
    /// Maximum length of a path in bytes.
    pub const MAX_LEN: usize = 4_096;

    /// Returns the root directory.
    pub fn root() -> Self {
        Self(Bytes::from_static(b"/"))
    }

    /// Validates a path. Repeated and trailing slashes are refused: nothing is normalised.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.len() > Self::MAX_LEN {
            return Err(PathError::TooLong(bytes.len()));
        }
        let Some(rest) = bytes.strip_prefix(b"/") else { return Err(PathError::NotAbsolute) };
        if !rest.is_empty() {
            rest.split(|b| *b == b'/').try_for_each(Name::check)?;
        }
        Ok(Self(bytes))
    }

    /// Returns whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Iterates over the names from the root down; none for the root itself.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = Name> + '_ {
        let mut start = 1;
        let ends = self.0.iter().enumerate().skip(1).filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        let mut names = Vec::new();
        for end in ends.chain((!self.is_root()).then_some(self.0.len())) {
            names.push(Name(self.0.slice(start..end)));
            start = end + 1;
        }
        names.into_iter()
    }

    /// Returns its directory and its name there; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, Name)> {
        if self.is_root() {
            return None;
        }
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        let parent = if slash == 0 { Self::root() } else { Self(self.0.slice(..slash)) };
        Some((parent, Name(self.0.slice(slash + 1..))))
    }

    /// Returns the path of `name` in this directory.
    pub fn join(&self, name: &Name) -> Result<Self, PathError> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        if !self.is_root() {
            bytes.extend_from_slice(&self.0);
        }
        bytes.push(b'/');
        bytes.extend_from_slice(&name.0);
        if bytes.len() > Self::MAX_LEN {
            return Err(PathError::TooLong(bytes.len()));
        }
        Ok(Self(bytes.into()))
    }

    /// Returns whether this is `other`, or below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(&other.0[..]).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes, shared.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for DfsPath {
    /// Prints UTF-8 verbatim, control characters and other bytes as `\xNN`, and backslashes
    /// doubled, so that no two paths look the same and none moves the cursor of a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lossless(&self.0, f)
    }
}

impl fmt::Debug for DfsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

pub(crate) fn write_lossless(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write;
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                }
                c => f.write_char(c)?,
            }
        }
        for byte in part.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> DfsPath {
        DfsPath::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn invalid_paths_are_refused() {
        let long = format!("/{}", "a/".repeat(2_048));
        for (text, error) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("//", PathError::Empty),
            ("/a//b", PathError::Empty),
            ("/a/", PathError::Empty),
            ("/a/../b", PathError::Dots),
            ("/.", PathError::Dots),
            ("/a\0", PathError::Nul),
            (&long, PathError::TooLong(4_097)),
            (&format!("/{}", "n".repeat(256)), PathError::NameTooLong(256)),
        ] {
            assert_eq!(DfsPath::new(text.as_bytes().to_vec()), Err(error), "{text:?}");
        }
        assert!(DfsPath::new(format!("/{}/b", "a/".repeat(2_047)[..4_093].to_owned())).is_ok());
        assert!(DfsPath::new(b"/\xff\n".to_vec()).is_ok());
    }

    #[test]
    fn paths_split_and_join() {
        let deep = path("/a/b/c");
        assert_eq!(deep.names().map(|n| n.to_string()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(DfsPath::root().names().count(), 0);
        let (parent, name) = deep.split_last().unwrap();
        assert_eq!((parent.clone(), name.to_string()), (path("/a/b"), "c".to_owned()));
        assert_eq!(parent.join(&name), Ok(deep));
        assert_eq!(path("/a").split_last().unwrap().0, DfsPath::root());
        assert_eq!(DfsPath::root().split_last(), None);
    }

    #[test]
    fn starts_with_compares_whole_names() {
        assert!(path("/a/b").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&DfsPath::root()));
        assert!(!path("/ab").starts_with(&path("/a")));
    }

    #[test]
    fn any_bytes_print_on_one_line() {
        let odd = DfsPath::new(b"/a\n\xff\\\xc3\xa9".to_vec()).unwrap();
        assert_eq!(odd.to_string(), "/a\\x0a\\xff\\\\é");
    }

    /// The rules of the contract in their plainest form.
    fn is_path(bytes: &[u8]) -> bool {
        let is_name = |name: &[u8]| {
            (1..=255).contains(&name.len()) && name != b"." && name != b".." && !name.contains(&0)
        };
        bytes == b"/"
            || bytes.len() <= 4_096
                && bytes.first() == Some(&b'/')
                && bytes[1..].split(|b| *b == b'/').all(is_name)
    }

    fn path_like() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..6),
            2 => Just(b".".to_vec()),
            2 => Just(b"..".to_vec()),
            1 => proptest::collection::vec(1_u8..=255, 250..260),
        ];
        let absolute = (any::<bool>(), proptest::collection::vec(piece, 0..20));
        absolute.prop_map(|(absolute, pieces)| {
            let bytes = pieces.join(&b'/');
            if absolute { [b"/", &bytes[..]].concat() } else { bytes }
        })
    }

    proptest! {
        #[test]
        fn parsing_matches_the_contract(bytes in path_like()) {
            prop_assert_eq!(DfsPath::new(bytes.clone()).is_ok(), is_path(&bytes));
        }

        #[test]
        fn names_join_to_the_same_path(bytes in path_like()) {
            let Ok(path) = DfsPath::new(bytes) else { return Ok(()) };
            let joined = path.names().try_fold(DfsPath::root(), |path, name| path.join(&name));
            prop_assert_eq!(joined.as_ref(), Ok(&path));
            if let Some((parent, name)) = path.split_last() {
                prop_assert!(path.starts_with(&parent) && !parent.starts_with(&path));
                prop_assert_eq!(path.names().next_back(), Some(name));
            }
        }

        #[test]
        fn no_two_paths_look_the_same(a in path_like(), b in path_like()) {
            let (Ok(a), Ok(b)) = (DfsPath::new(a), DfsPath::new(b)) else { return Ok(()) };
            prop_assert_eq!(a == b, a.to_string() == b.to_string());
            prop_assert!(!a.to_string().chars().any(char::is_control));
        }
    }
}

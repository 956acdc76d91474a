//! Extended attributes: their names and bounds.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

/// Namespaces with free names after the prefix.
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// All names of the namespace `system.`.
const SYSTEM: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Defects of extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// The name is longer than [`XattrName::MAX_LEN`] bytes.
    #[error("the name of an extended attribute may have at most {max} bytes, not {0}",
        max = XattrName::MAX_LEN)]
    NameTooLong(usize),
    /// The name is in an unsupported namespace.
    #[error(
        "the name of an extended attribute must start with user., trusted. or security., or be one of \
         the two system.posix_acl_ names"
    )]
    Namespace,
    /// A NUL byte.
    #[error("the name of an extended attribute must not contain a NUL byte")]
    Nul,
    /// The value is longer than [`XattrName::VALUE_LEN_MAX`] bytes.
    #[error("the value of an extended attribute may have at most {max} bytes, not {0}",
        max = XattrName::VALUE_LEN_MAX)]
    ValueTooLong(usize),
    /// More than [`XattrName::PER_INODE`] on one inode.
    #[error("an inode may have at most {max} extended attributes, not {0}",
        max = XattrName::PER_INODE)]
    TooMany(usize),
    /// More than [`XattrName::BYTES_PER_INODE`] of names and values on one inode.
    #[error("the extended attributes of an inode may have at most {max} bytes, not {0}",
        max = XattrName::BYTES_PER_INODE)]
    TooLarge(usize),
}

/// The name of an extended attribute, with its namespace: `user.`, `trusted.` or `security.` and at
/// least one more byte, or one of the POSIX ACLs under `system.`. No NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Bytes);

impl XattrName {
    /// Maximum length of a name in bytes.
    pub const MAX_LEN: usize = 255;
    /// Maximum length of a value in bytes.
    pub const VALUE_LEN_MAX: usize = 64 << 10;
    /// Maximum number of extended attributes per inode.
    pub const PER_INODE: usize = 64;
    /// Maximum bytes of names and values per inode.
    pub const BYTES_PER_INODE: usize = 256 << 10;

    /// Validates a name.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, XattrError> {
        let bytes = bytes.into();
        if bytes.len() > Self::MAX_LEN {
            return Err(XattrError::NameTooLong(bytes.len()));
        }
        if bytes.contains(&0) {
            return Err(XattrError::Nul);
        }
        let in_prefix = |prefix: &&[u8]| bytes.len() > prefix.len() && bytes.starts_with(prefix);
        if !PREFIXES.iter().any(in_prefix) && !SYSTEM.contains(&&bytes[..]) {
            return Err(XattrError::Namespace);
        }
        Ok(Self(bytes))
    }

    /// Validates the length of a value.
    pub fn check_value(value: &[u8]) -> Result<(), XattrError> {
        if value.len() > Self::VALUE_LEN_MAX {
            return Err(XattrError::ValueTooLong(value.len()));
        }
        Ok(())
    }

    /// Validates the number and size of an inode's attributes. The error names the first attribute,
    /// in byte order, that is too long or one too many.
    pub fn check_all(xattrs: &BTreeMap<Self, Bytes>) -> Result<(), (&Self, XattrError)> {
        let bytes_of = |(name, value): (&Self, &Bytes)| name.0.len() + value.len();
        let (count, all) = (xattrs.len(), xattrs.iter().map(bytes_of).sum());
        let mut bytes = 0;
        for (index, (name, value)) in xattrs.iter().enumerate() {
            Self::check_value(value).map_err(|error| (name, error))?;
            bytes += bytes_of((name, value));
            if index >= Self::PER_INODE {
                return Err((name, XattrError::TooMany(count)));
            }
            if bytes > Self::BYTES_PER_INODE {
                return Err((name, XattrError::TooLarge(all)));
            }
        }
        Ok(())
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes, shared.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Returns whether it is in the namespace `user.`, which every owner of a file may write.
    pub fn is_user(&self) -> bool {
        self.0.starts_with(b"user.")
    }
}

impl fmt::Display for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::path::write_lossless(&self.0, f)
    }
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_supported_namespaces_are_refused() {
        for name in ["user.a", "trusted.bucket", "security.capability", "system.posix_acl_access"] {
            assert_eq!(XattrName::new(name).map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for name in ["", "user.", "users.a", "system.nfs4_acl", "a", "User.a"] {
            assert_eq!(XattrName::new(name), Err(XattrError::Namespace), "{name}");
        }
        assert_eq!(XattrName::new("user.a\0b"), Err(XattrError::Nul));
        let longest = format!("user.{}", "x".repeat(XattrName::MAX_LEN - 5));
        assert!(XattrName::new(longest.clone()).is_ok());
        assert_eq!(XattrName::new(longest + "x"), Err(XattrError::NameTooLong(256)));
    }

    #[test]
    fn invalid_attribute_is_named() {
        let name = |text: String| XattrName::new(text).unwrap();
        let of = |count: usize, len: usize| -> BTreeMap<_, _> {
            let value = Bytes::from(vec![0; len]);
            (0..count).map(|n| (name(format!("user.{n:02}")), value.clone())).collect()
        };
        assert_eq!(XattrName::check_all(&of(64, 1)), Ok(()));
        assert_eq!(
            XattrName::check_all(&of(65, 1)),
            Err((&name("user.64".into()), XattrError::TooMany(65)))
        );
        assert_eq!(
            XattrName::check_all(&of(5, 60_000)),
            Err((&name("user.04".into()), XattrError::TooLarge(300_035)))
        );
        assert_eq!(
            XattrName::check_all(&of(1, 65_537)),
            Err((&name("user.00".into()), XattrError::ValueTooLong(65_537)))
        );
    }

    #[test]
    fn values_are_bounded() {
        assert_eq!(XattrName::check_value(&vec![0; 65_536]), Ok(()));
        assert_eq!(XattrName::check_value(&vec![0; 65_537]), Err(XattrError::ValueTooLong(65_537)));
    }
}

//! The closed list of error codes, and what each maps to.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $errno:ident;)*) => {
        /// Error codes, the same on every interface of dfs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the name on the wire, in logs and in `--json`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns the errno of a mounted file system.
            pub fn errno(self) -> i32 {
                match self { $(Self::$variant => errno::$errno,)* }
            }
        }
    };
}

// Linux numbers, spelled out so that this crate needs no libc.
mod errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EIO: i32 = 5;
    pub(super) const EAGAIN: i32 = 11;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const EXDEV: i32 = 18;
    pub(super) const ENOTDIR: i32 = 20;
    pub(super) const EISDIR: i32 = 21;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EROFS: i32 = 30;
    pub(super) const ENAMETOOLONG: i32 = 36;
    pub(super) const ENOSYS: i32 = 38;
    pub(super) const ENOTEMPTY: i32 = 39;
    pub(super) const EPROTO: i32 = 71;
    pub(super) const ESTALE: i32 = 116;
    pub(super) const EDQUOT: i32 = 122;
}

error_codes! {
    /// The request is invalid, whatever the state of the system.
    InvalidArgument = "INVALID_ARGUMENT", EINVAL;
    /// A path or name is longer than allowed.
    NameTooLong = "NAME_TOO_LONG", ENAMETOOLONG;
    /// The named object does not exist.
    NotFound = "NOT_FOUND", ENOENT;
    /// The name is already taken.
    AlreadyExists = "ALREADY_EXISTS", EEXIST;
    /// The directory has entries, or the datanode holds chunks, or may.
    NotEmpty = "NOT_EMPTY", ENOTEMPTY;
    /// A directory is required.
    NotADirectory = "NOT_A_DIRECTORY", ENOTDIR;
    /// A directory is not allowed.
    IsADirectory = "IS_A_DIRECTORY", EISDIR;
    /// A directory would end up inside itself.
    WouldCycle = "WOULD_CYCLE", EINVAL;
    /// A rename or link would cross from one volume to another.
    CrossVolume = "CROSS_VOLUME", EXDEV;
    /// An upload or open file has expired or was superseded.
    Stale = "STALE", ESTALE;
    /// Conflicting changes kept winning, up to the limit of retries.
    Conflict = "CONFLICT", EAGAIN;
    /// No usable disk has space.
    NoSpace = "NO_SPACE", ENOSPC;
    /// A limit set for this part of the tree is reached.
    QuotaExceeded = "QUOTA_EXCEEDED", EDQUOT;
    /// A limit is reached for the moment; a hint says when to retry.
    Busy = "BUSY", EAGAIN;
    /// Fewer datanodes can take a chunk than durable replicas are required.
    NotEnoughNodes = "NOT_ENOUGH_NODES", EIO;
    /// A server cannot be reached, or does not know enough yet.
    Unavailable = "UNAVAILABLE", EIO;
    /// The call may or may not have taken effect. Only returned by the SDK.
    OutcomeUnknown = "OUTCOME_UNKNOWN", EIO;
    /// Data does not match the checksum sent with it.
    ChecksumMismatch = "CHECKSUM_MISMATCH", EIO;
    /// No good replica is reachable.
    Corrupt = "CORRUPT", EIO;
    /// The caller is not authenticated.
    Unauthenticated = "UNAUTHENTICATED", EACCES;
    /// The caller is not permitted to do this.
    PermissionDenied = "PERMISSION_DENIED", EACCES;
    /// Nothing may be changed here.
    ReadOnly = "READ_ONLY", EROFS;
    /// Meant for another cluster, or an older state of this one.
    WrongCluster = "WRONG_CLUSTER", EPROTO;
    /// Written in, or speaking, an unknown version.
    UnsupportedVersion = "UNSUPPORTED_VERSION", EPROTO;
    /// Not supported by this server.
    Unimplemented = "UNIMPLEMENTED", ENOSYS;
    /// A defect of dfs.
    Internal = "INTERNAL", EIO;
}

impl ErrorCode {
    /// Returns the code with that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// Returns whether the same call may succeed later without further action.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Busy | Self::NotEnoughNodes | Self::Unavailable)
    }

    /// Returns whether the call may have taken effect despite the error.
    pub fn is_outcome_unknown(self) -> bool {
        self == Self::OutcomeUnknown
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_round_trip() {
        let names: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
        }
        assert_eq!(ErrorCode::from_name("not_found"), None);
    }
}

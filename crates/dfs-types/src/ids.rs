//! Identifiers, each with its own type so that they cannot be confused.

use std::fmt;
use std::str::FromStr;

use crate::{Random, Timestamp};

/// A text is not an id of 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id of 32 hexadecimal digits")]
pub struct ParseIdError(pub String);

macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl $name {
            /// Length of the binary form in bytes; big-endian, so that byte order is id order.
            pub const LEN: usize = 16;

            /// Returns a random id.
            pub fn random(random: &dyn Random) -> Self {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                Self(u128::from_be_bytes(bytes))
            }

            /// Returns the binary form.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// Parses the binary form; `None` when it is not 16 bytes long.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(ParseIdError(text.to_owned()));
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| ParseIdError(text.to_owned()))
            }
        }
    };
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The first number.
            pub const FIRST: Self = Self(1);

            /// Returns the next number.
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

wide_id! {
    /// An immutable run of a file's bytes. Ordered by the time it was planned; written at most
    /// once: another attempt, with other nodes, gets a new id.
    ChunkId
}
wide_id! {
    /// One file system: its metadata and the disks that belong to it.
    ClusterId
}
wide_id! {
    /// A datanode. Stored on its disks, so that it stays the same node under a new address or in a
    /// new pod.
    NodeId
}
wide_id! {
    /// One disk of a datanode.
    DiskId
}
wide_id! {
    /// One run of a coordinator process. Chosen at each start, so that no two runs share one,
    /// whatever their addresses.
    CoordinatorId
}
wide_id! {
    /// A file system of a machine, which several disks of datanodes may share. Known while the
    /// machine runs.
    FileSystemId
}
wide_id! {
    /// The transfer of one chunk into one datanode.
    SessionId
}
wide_id! {
    /// A running client, which owns the slots that make its calls repeatable. Ordered by the time
    /// at which it started; one that is too old is refused.
    ClientId
}
wide_id! {
    /// Follows a user action through every process and log line.
    RequestId
}

counter! {
    /// A file, directory or symlink. The root directory is [`InodeId::ROOT`].
    InodeId
}
counter! {
    /// Identifies one replica of a chunk on a node; no later replica of that chunk there shares it.
    Stamp
}
counter! {
    /// Incarnation of a cluster's metadata; raised by init, migration and restore.
    Incarnation
}
counter! {
    /// Epoch of the worker lease; an order of an older epoch is refused.
    LeaseEpoch
}
counter! {
    /// Revision of the metadata engine: each commit has a greater one than all before it.
    Revision
}
counter! {
    /// Registration of a datanode: each one writes a greater number to its disks and the metadata.
    RegistrationNumber
}
counter! {
    /// Generation of a chunk record: each change of its replicas raises it.
    Generation
}

/// A disk of a datanode in chunk records. Assigned to a (node, disk) pair at its first
/// registration, and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskNumber(pub u32);

impl DiskNumber {
    /// The first number.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for DiskNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl InodeId {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// Orders ids by the time of their creation.
macro_rules! timed_id {
    ($name:ident) => {
        impl $name {
            /// Creates an id: 48 bits of milliseconds, then 80 random bits (the layout of ULID).
            pub fn new(now: Timestamp, random: &dyn Random) -> Self {
                let low = Self::random(random).0 & ((1 << 80) - 1);
                Self(Self::floor(now).0 | low)
            }

            /// Returns the lowest id that can be created at `time`: all earlier ones are below it.
            pub fn floor(time: Timestamp) -> Self {
                Self(u128::from(time.millis() & ((1 << 48) - 1)) << 80)
            }

            /// Returns when the id was created, if the clock of its creator was right.
            pub fn time(self) -> Timestamp {
                Timestamp::from_millis((self.0 >> 80) as u64)
            }
        }
    };
}

timed_id!(ChunkId);
timed_id!(ClientId);

impl ChunkId {
    /// The lowest id.
    pub const MIN: Self = Self(0);
    /// The highest id.
    pub const MAX: Self = Self(u128::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;

    #[test]
    fn text_and_bytes_round_trip() {
        let id = NodeId::random(&SeededRandom::new(1));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(NodeId::from_slice(&id.to_bytes()), Some(id));
        assert_eq!(NodeId::from_slice(&[0; 15]), None);
        for bad in ["", "+0000000000000000000000000000001", "é", &"g".repeat(32)] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chunk_ids_are_ordered_by_time() {
        let random = SeededRandom::new(1);
        let (a, b) = (Timestamp::from_millis(1_000), Timestamp::from_millis(1_001));
        let (first, second) = (ChunkId::new(a, &random), ChunkId::new(b, &random));
        assert!(first < second);
        assert_eq!(first.time(), a);
        assert!(ChunkId::floor(a) <= first && first < ChunkId::floor(b));
    }

    #[test]
    fn bytes_sort_as_ids_do() {
        let random = SeededRandom::new(2);
        for _ in 0..100 {
            let (a, b) = (ChunkId::random(&random), ChunkId::random(&random));
            assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
        }
    }
}

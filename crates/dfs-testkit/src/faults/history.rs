//! Calls of clients, with their replies.

use std::fmt;

use dfs_types::{ErrorCode, FileKind, Random};

/// A path below the directory of a group.
pub(super) type Path = &'static [&'static str];

/// Few, so that calls interfere; some below others, so that directories are moved with their
/// entries.
const PATHS: &[Path] = &[&["a"], &["b"], &["c"], &["a", "x"], &["b", "x"], &["a", "y"]];

/// A call within one group. A file put and a directory made are identified by the number of the
/// operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    MakeDirectory(Path),
    Put(Path),
    Rename(Path, Path),
    Delete { path: Path, recursive: bool },
    Stat(Path),
    List(Path),
    Read(Path),
}

/// An inode in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) inode: u64,
    pub(super) kind: FileKind,
    pub(super) size: u64,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// The inode that was created.
    Made(u64),
    Seen(Seen),
    Listed(Vec<(String, Seen)>),
    /// The content read is that of this put; of none if empty.
    Read(Seen, Option<u32>),
    Failed(ErrorCode),
    /// Unknown: the call may have taken effect, or may do so at any later time.
    Unknown,
}

/// A call of a history, with times in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) number: u32,
    pub(super) group: u32,
    pub(super) call: Call,
    pub(super) answer: Answer,
    pub(super) called: u64,
    pub(super) returned: u64,
}

impl Call {
    /// Returns a random call.
    pub(super) fn any(random: &dyn Random) -> Self {
        let path = || PATHS[random.below(PATHS.len() as u64) as usize];
        match random.below(100) {
            0..12 => Self::MakeDirectory(path()),
            12..40 => Self::Put(path()),
            40..55 => Self::Rename(path(), path()),
            55..67 => Self::Delete { path: path(), recursive: random.below(2) == 0 },
            67..77 => Self::Stat(path()),
            77..85 => Self::List(if random.below(2) == 0 { &[] } else { path() }),
            _ => Self::Read(path()),
        }
    }

    /// Returns calls that read everything that may exist.
    pub(super) fn looks() -> impl Iterator<Item = Self> {
        let lists = [&[][..], &["a"], &["b"], &["c"]].into_iter().map(Self::List);
        lists.chain(PATHS.iter().copied().map(Self::Read))
    }

    /// Returns true if it may change something.
    pub(super) fn is_change(self) -> bool {
        !matches!(self, Self::Stat(_) | Self::List(_) | Self::Read(_))
    }
}

/// Returns the content of the put with this number: mostly a few bytes, sometimes none or several
/// chunks. Starts with the number.
pub(super) fn content(number: u32) -> Vec<u8> {
    let size = match number % 16 {
        0 => 150_000,
        1 => return Vec::new(),
        _ => 16 + number as usize * 7_919 % 6_000,
    };
    let mut bytes = number.to_le_bytes().to_vec();
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Returns the put that wrote these bytes; `None` if empty. Fails if no put did.
pub(super) fn writer_of(bytes: &[u8]) -> Result<Option<u32>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let number = bytes.first_chunk().map(|first| u32::from_le_bytes(*first));
    let number = number.filter(|number| content(*number) == bytes);
    number.map(Some).ok_or_else(|| format!("{} bytes that no put wrote", bytes.len()))
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, group, call, answer, called, returned } = self;
        let second = |micros: &u64| *micros as f64 / 1e6;
        let (called, returned) = (second(called), second(returned));
        write!(
            f,
            "{called:>10.4} to {returned:>10.4} #{number} group {group}: {call:?} -> {answer:?}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_identifies_its_put() {
        for number in [2, 16, 70_000] {
            let mut bytes = content(number);
            assert_eq!(writer_of(&bytes), Ok(Some(number)));
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert!(writer_of(&bytes).is_err());
            assert!(writer_of(&bytes[..last]).is_err());
        }
        assert_eq!((content(17), writer_of(&[])), (Vec::new(), Ok(None)));
        assert!(writer_of(&[1]).is_err());
    }
}

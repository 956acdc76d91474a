//! Calls of clients, and what was answered.

use std::fmt;

use dfs_types::{ErrorCode, FileKind, Random};

/// A path below the directory of a group.
pub(super) type Path = &'static [&'static str];

/// Few, so that calls meet; some below others, so that directories are moved with what is in them.
const PATHS: &[Path] = &[&["a"], &["b"], &["c"], &["a", "x"], &["b", "x"], &["a", "y"]];

/// A call within one group. The file that a put makes and the directory that is made are known by
/// the number of the operation.
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

/// An inode as it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) inode: u64,
    pub(super) kind: FileKind,
    pub(super) size: u64,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// The inode that was made.
    Made(u64),
    Seen(Seen),
    Listed(Vec<(String, Seen)>),
    /// What was read is the content of this put; of none when it is empty.
    Read(Seen, Option<u32>),
    Failed(ErrorCode),
    /// It may have taken place, or may do so at any later time.
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
    /// Some call.
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

    /// Calls that look at everything there may be.
    pub(super) fn looks() -> impl Iterator<Item = Self> {
        let lists = [&[][..], &["a"], &["b"], &["c"]].into_iter().map(Self::List);
        lists.chain(PATHS.iter().copied().map(Self::Read))
    }

    /// Whether it may change something.
    pub(super) fn is_change(self) -> bool {
        !matches!(self, Self::Stat(_) | Self::List(_) | Self::Read(_))
    }
}

/// What the put of this number writes: mostly a few bytes, sometimes nothing or several chunks.
/// It begins with the number.
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

/// Of which put these bytes are; `None` of one that is empty. Fails when nobody has put them.
pub(super) fn writer_of(bytes: &[u8]) -> Result<Option<u32>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let number = bytes.first_chunk().map(|first| u32::from_le_bytes(*first));
    let number = number.filter(|number| content(*number) == bytes);
    number.map(Some).ok_or_else(|| format!("{} bytes that nobody has put", bytes.len()))
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
    fn content_tells_who_wrote_it() {
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

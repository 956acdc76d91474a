//! Checksums: crc32c for each block and each chunk, sha256 for each chunk.

use std::fmt;

use sha2::Digest;

/// Bytes of a chunk that one crc32c covers; the last block of a chunk may be shorter.
pub const BLOCK_SIZE: usize = 64 << 10;

/// How many blocks `length` bytes take.
pub fn block_count(length: u64) -> u64 {
    length.div_ceil(BLOCK_SIZE as u64)
}

/// A crc32c (Castagnoli) of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Crc32c(pub u32);

impl Crc32c {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc32c::crc32c(bytes))
    }

    /// Of what this covers followed by `bytes`.
    #[must_use]
    pub fn append(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }

    /// Of what this covers followed by `length` bytes with the checksum `next`, without the bytes.
    #[must_use]
    pub fn combine(self, next: Self, length: usize) -> Self {
        Self(crc32c::crc32c_combine(self.0, next.0, length))
    }

    /// Of each block of `bytes`, which start at a block boundary.
    pub fn of_blocks(bytes: &[u8]) -> Vec<Self> {
        bytes.chunks(BLOCK_SIZE).map(Self::of).collect()
    }

    /// Of a run of `length` bytes from the checksums of its blocks; `None` when their number does
    /// not fit the length.
    pub fn of_whole(blocks: &[Self], length: u64) -> Option<Self> {
        if block_count(length) != blocks.len() as u64 {
            return None;
        }
        let mut whole = Self::default();
        let mut left = length;
        for block in blocks {
            let size = left.min(BLOCK_SIZE as u64);
            whole = whole.combine(*block, size as usize);
            left -= size;
        }
        Some(whole)
    }
}

impl fmt::Display for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc32c({self})")
    }
}

/// A sha256 of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Reads the binary form; `None` when it is not 32 bytes long.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// A sha256 of bytes that come piece by piece. Costs about a second of a core for 1.5 GB: keep it
/// off threads that serve others.
#[derive(Clone, Default)]
pub struct Sha256Hasher(sha2::Sha256);

impl Sha256Hasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sha256 of everything added.
    pub fn finish(self) -> Sha256 {
        Sha256(self.0.finalize().into())
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // RFC 3720, section B.4, and FIPS 180-2, appendix B.1.
        assert_eq!(Crc32c::of(&[0; 32]).0, 0x8a91_36aa);
        assert_eq!(Crc32c::of(&[0xff; 32]).0, 0x62a8_ab43);
        assert!(Sha256::of(b"abc").to_string().starts_with("ba7816bf8f01cfea"));
    }

    #[test]
    fn the_whole_follows_from_its_blocks() {
        for length in [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
            let blocks = Crc32c::of_blocks(&bytes);
            assert_eq!(Crc32c::of_whole(&blocks, length as u64), Some(Crc32c::of(&bytes)));
        }
        assert_eq!(Crc32c::of_whole(&[], 1), None);
    }
}

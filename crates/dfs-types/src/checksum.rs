//! Checksums: crc32c for each block and each chunk, sha256 for each chunk.

use std::fmt;

use sha2::Digest;

/// Bytes covered by one crc32c; the last block of a chunk may be shorter.
pub const BLOCK_SIZE: usize = 64 << 10;

/// Returns the number of blocks in `length` bytes.
pub fn block_count(length: u64) -> u64 {
    length.div_ceil(BLOCK_SIZE as u64)
}

/// Polynomials over GF(2) modulo that of crc32c, bits reversed: the top bit is the coefficient of
/// x⁰. Appending `n` bytes to what a crc covers multiplies it by x⁸ⁿ (Adler, zlib 1.2.12).
mod polynomial {
    const MODULUS: u32 = 0x82f6_3b78;

    /// x to the power 8·2ⁿ for each n.
    const POWERS: [u32; 64] = {
        let mut powers = [0; 64];
        // x⁸ is the bit 8 below the top.
        powers[0] = 1 << 23;
        let mut n = 1;
        while n < 64 {
            powers[n] = multiply(powers[n - 1], powers[n - 1]);
            n += 1;
        }
        powers
    };

    pub(super) const fn multiply(a: u32, mut b: u32) -> u32 {
        let mut product = 0;
        let mut bit = 32;
        while bit > 0 {
            bit -= 1;
            // Without branches: the bits are as good as random.
            product ^= b & 0u32.wrapping_sub(a >> bit & 1);
            b = b >> 1 ^ MODULUS & 0u32.wrapping_sub(b & 1);
        }
        product
    }

    /// Returns x to the power of 8·`length`.
    pub(super) fn x_to_bytes(mut length: usize) -> u32 {
        let mut power = 1 << 31;
        while length > 0 {
            let n = length.trailing_zeros();
            power = multiply(POWERS[n as usize], power);
            length &= length - 1;
        }
        power
    }
}

/// A crc32c (Castagnoli) of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Crc32c(pub u32);

impl Crc32c {
    /// Returns the checksum of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc32c::crc32c(bytes))
    }

    /// Returns the checksum of the covered bytes followed by `bytes`.
    #[must_use]
    pub fn append(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }

    /// Returns the checksum of the covered bytes followed by `length` bytes with the checksum
    /// `next`, without needing the bytes.
    #[must_use]
    pub fn combine(self, next: Self, length: usize) -> Self {
        Self(polynomial::multiply(polynomial::x_to_bytes(length), self.0) ^ next.0)
    }

    /// Returns the checksum of each block of `bytes`, which start at a block boundary.
    pub fn of_blocks(bytes: &[u8]) -> Vec<Self> {
        bytes.chunks(BLOCK_SIZE).map(Self::of).collect()
    }

    /// Returns the checksum of `length` bytes from those of their blocks; `None` when the number of
    /// blocks does not fit the length.
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
    /// Returns the hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Parses the binary form; `None` when it is not 32 bytes long.
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

/// An incremental sha256. Costs about a second of a core per 1.5 GB: keep it off threads that serve
/// others.
#[derive(Clone, Default)]
pub struct Sha256Hasher(sha2::Sha256);

impl Sha256Hasher {
    /// Creates a hasher of no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the sha256 of all appended bytes.
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
    fn whole_checksum_follows_from_blocks() {
        for length in [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
            let blocks = Crc32c::of_blocks(&bytes);
            assert_eq!(Crc32c::of_whole(&blocks, length as u64), Some(Crc32c::of(&bytes)));
        }
        assert_eq!(Crc32c::of_whole(&[], 1), None);
    }

    proptest::proptest! {
        #[test]
        fn combine_equals_the_library(first: u32, next: u32, length: usize) {
            let combined = Crc32c(first).combine(Crc32c(next), length);
            proptest::prop_assert_eq!(combined.0, crc32c::crc32c_combine(first, next, length));
        }
    }
}

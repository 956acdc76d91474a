//! Frames: pieces of a chunk in transit between two processes.

use bytes::Bytes;

use crate::{BLOCK_SIZE, Crc32c, ErrorCode, Sha256, block_count};

/// Length and checksums of a whole chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSeal {
    /// Length of the chunk in bytes.
    pub length: u64,
    /// Checksum of the whole chunk.
    pub crc32c: Crc32c,
    /// Hash of the whole chunk, as claimed by its writer.
    pub sha256: Sha256,
}

/// A run of whole blocks of a chunk. Not to be trusted before [`Frame::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Offset of the data in the chunk; a multiple of [`BLOCK_SIZE`].
    pub offset: u64,
    /// Whole blocks, at most [`Frame::DATA_MAX`] bytes; the last block of a chunk may be shorter.
    pub data: Bytes,
    /// Checksum of each block of `data`, computed once by the first writer.
    pub crcs: Vec<Crc32c>,
    /// Only set on the last frame of a chunk, which may be without data.
    pub seal: Option<ChunkSeal>,
}

/// Defects of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Start off a block boundary.
    #[error("a frame must start at a multiple of {BLOCK_SIZE}, not at {0}")]
    Unaligned(u64),
    /// More than [`Frame::DATA_MAX`] bytes.
    #[error("a frame may have at most {max} bytes, not {0}", max = Frame::DATA_MAX)]
    TooLong(usize),
    /// No data, or a partial block at the end, in a frame that is not the last of its chunk.
    #[error("only the last frame of a chunk may have a partial block, not one of {0} bytes")]
    PartialBlock(usize),
    /// The number of checksums does not match the number of blocks.
    #[error("{blocks} blocks came with {crcs} checksums")]
    ChecksumCount {
        /// Number of blocks.
        blocks: u64,
        /// Number of checksums.
        crcs: usize,
    },
    /// End past the address space, or past the sealed length.
    #[error("a frame of {length} bytes at {offset} does not fit its chunk")]
    PastEnd {
        /// Offset of the frame.
        offset: u64,
        /// Bytes of data.
        length: usize,
    },
    /// A block does not match the checksum sent with it.
    #[error("block {0} does not match the checksum sent with it")]
    ChecksumMismatch(u64),
}

impl FrameError {
    /// Returns its error code.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::ChecksumMismatch(_) => ErrorCode::ChecksumMismatch,
            _ => ErrorCode::InvalidArgument,
        }
    }
}

impl Frame {
    /// Maximum bytes of data in a frame.
    pub const DATA_MAX: usize = 1 << 20;

    /// Creates a frame and computes its checksums. Only for the first writer of the bytes: a
    /// forwarder keeps the checksums that came with them.
    pub fn of(offset: u64, data: Bytes, seal: Option<ChunkSeal>) -> Self {
        Self { offset, crcs: Crc32c::of_blocks(&data), data, seal }
    }

    /// Returns where the next frame would start.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.data.len() as u64)
    }

    /// Checks its shape and each block against its checksum. Costs about 50 µs for 1 MiB.
    pub fn verify(&self) -> Result<(), FrameError> {
        self.check_shape()?;
        let first = self.offset / BLOCK_SIZE as u64;
        for (block, (data, crc)) in (first..).zip(self.data.chunks(BLOCK_SIZE).zip(&self.crcs)) {
            if Crc32c::of(data) != *crc {
                return Err(FrameError::ChecksumMismatch(block));
            }
        }
        Ok(())
    }

    fn check_shape(&self) -> Result<(), FrameError> {
        let length = self.data.len();
        let past_end = FrameError::PastEnd { offset: self.offset, length };
        let end = self.offset.checked_add(length as u64).ok_or(past_end)?;
        if !self.offset.is_multiple_of(BLOCK_SIZE as u64) {
            return Err(FrameError::Unaligned(self.offset));
        }
        if length > Self::DATA_MAX {
            return Err(FrameError::TooLong(length));
        }
        match self.seal {
            None if length == 0 || !length.is_multiple_of(BLOCK_SIZE) => {
                return Err(FrameError::PartialBlock(length));
            }
            Some(seal) if seal.length != end => return Err(past_end),
            _ => {}
        }
        let blocks = block_count(length as u64);
        if blocks != self.crcs.len() as u64 {
            return Err(FrameError::ChecksumCount { blocks, crcs: self.crcs.len() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(length: u64) -> ChunkSeal {
        ChunkSeal { length, crc32c: Crc32c(0), sha256: Sha256([0; 32]) }
    }

    #[test]
    fn sound_frames_pass() {
        let block = BLOCK_SIZE as u64;
        for frame in [
            Frame::of(0, vec![7; BLOCK_SIZE].into(), None),
            Frame::of(block, vec![7; Frame::DATA_MAX].into(), None),
            Frame::of(0, vec![7; 1].into(), Some(seal(1))),
            Frame::of(block, vec![7; BLOCK_SIZE + 1].into(), Some(seal(2 * block + 1))),
            Frame::of(0, Bytes::new(), Some(seal(0))),
            Frame::of(block, Bytes::new(), Some(seal(block))),
        ] {
            assert_eq!(frame.verify(), Ok(()), "{} {}", frame.offset, frame.data.len());
        }
    }

    #[test]
    fn each_defect_has_its_error() {
        let block = BLOCK_SIZE as u64;
        let good = Frame::of(block, vec![7; 2 * BLOCK_SIZE].into(), None);
        let long = vec![7; Frame::DATA_MAX + BLOCK_SIZE];
        let mut flipped = good.clone();
        flipped.crcs[1].0 ^= 1;
        let mut short = good.clone();
        short.crcs.pop();
        for (frame, error) in [
            (Frame { offset: 1, ..good.clone() }, FrameError::Unaligned(1)),
            (Frame::of(0, long.clone().into(), None), FrameError::TooLong(long.len())),
            (Frame::of(0, vec![7; 5].into(), None), FrameError::PartialBlock(5)),
            (Frame::of(0, Bytes::new(), None), FrameError::PartialBlock(0)),
            (short, FrameError::ChecksumCount { blocks: 2, crcs: 1 }),
            (
                Frame { seal: Some(seal(3 * block - 1)), ..good.clone() },
                FrameError::PastEnd { offset: block, length: 2 * BLOCK_SIZE },
            ),
            (
                Frame { offset: u64::MAX - block + 1, ..good.clone() },
                FrameError::PastEnd { offset: u64::MAX - block + 1, length: 2 * BLOCK_SIZE },
            ),
            (flipped, FrameError::ChecksumMismatch(2)),
        ] {
            assert_eq!(frame.verify(), Err(error));
        }
        assert_eq!(FrameError::ChecksumMismatch(0).code(), ErrorCode::ChecksumMismatch);
        assert_eq!(FrameError::Unaligned(1).code(), ErrorCode::InvalidArgument);
    }
}

//! Binds reads to the metadata: the blocks of a chunk that was read completely must combine to the
//! checksum in the metadata.
//!
//! Each block matches the checksum that its node sent along, which cannot detect a node that serves
//! another chunk instead.

use std::collections::{BTreeMap, VecDeque};

use dfs_types::{ChunkId, ChunkSeal, Crc32c, ErrorCode};

use crate::Error;
use crate::pieces::Piece;

/// Maximum number of chunks whose pieces are remembered. Pieces arrive in about file order, so that
/// an evicted chunk is one that the reader wanted only partially.
const CHUNKS_MAX: usize = 16;

/// Combines the checksums of pieces as they arrive, in any order.
#[derive(Debug, Default)]
pub(crate) struct WholeChunks(VecDeque<Partial>);

#[derive(Debug)]
struct Partial {
    chunk: ChunkId,
    /// Length and checksum of disjoint runs, by their offset in the chunk.
    runs: BTreeMap<u64, (u64, Crc32c)>,
}

impl WholeChunks {
    /// Adds a piece; without a checksum if it does not consist of whole blocks.
    ///
    /// # Errors
    /// [`ErrorCode::Corrupt`] when the piece completes a chunk that has another checksum.
    pub(crate) fn add(
        &mut self,
        context: &str,
        piece: &Piece,
        crc: Option<Crc32c>,
    ) -> Result<(), Error> {
        let (chunk, seal) = (piece.extent.chunk, &piece.extent.seal);
        let Some(crc) = crc else { return Ok(()) };
        let start = piece.extent.chunk_offset + piece.offset;
        let index = self.0.iter().position(|partial| partial.chunk == chunk);
        let index = index.unwrap_or_else(|| {
            if self.0.len() == CHUNKS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(Partial { chunk, runs: BTreeMap::new() });
            self.0.len() - 1
        });
        let runs = &mut self.0[index].runs;
        runs.insert(start, (piece.length, crc));
        let Some(whole) = combined(runs, seal.length) else { return Ok(()) };
        self.0.remove(index);
        if whole == seal.crc32c {
            return Ok(());
        }
        let message = format!(
            "the blocks read of chunk {chunk} are not those that were written: together they have \
             the checksum {whole}, not {}; see `dfs explain --verify`",
            seal.crc32c
        );
        Err(Error::new(ErrorCode::Corrupt, context, message))
    }
}

/// Returns the checksum of all runs, if they cover `length` bytes without a gap.
fn combined(runs: &BTreeMap<u64, (u64, Crc32c)>, length: u64) -> Option<Crc32c> {
    let covered = runs.values().map(|(length, _)| length).sum::<u64>();
    if covered < length {
        return None;
    }
    let mut whole = Crc32c::default();
    let mut at = 0;
    for (start, (length, crc)) in runs {
        if *start != at {
            return None;
        }
        whole = whole.combine(*crc, *length as usize);
        at += length;
    }
    (at == length).then_some(whole)
}

/// Returns true unless bytes that cover a whole chunk are those of another one.
pub(crate) fn is_of_chunk(seal: &ChunkSeal, offset: u64, length: u64, crc: Option<Crc32c>) -> bool {
    let is_whole = offset == 0 && length == seal.length;
    !is_whole || crc.is_none_or(|crc| crc == seal.crc32c)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dfs_types::{Redundancy, Sha256};

    use super::*;
    use crate::layout::Extent;

    fn extent(chunk: u128, bytes: &[u8]) -> Arc<Extent> {
        let length = bytes.len() as u64;
        let seal = ChunkSeal { length, crc32c: Crc32c::of(bytes), sha256: Sha256::of(bytes) };
        Arc::new(Extent {
            file_offset: 0,
            length,
            chunk: ChunkId(chunk),
            chunk_offset: 0,
            seal,
            redundancy: Redundancy::Replicated { copies: 1 },
            replicas: Vec::new(),
        })
    }

    fn add(
        chunks: &mut WholeChunks,
        extent: &Arc<Extent>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let piece = Piece { extent: extent.clone(), offset, length: bytes.len() as u64 };
        chunks.add("/f", &piece, Some(Crc32c::of(bytes)))
    }

    #[test]
    fn pieces_in_any_order_must_combine_to_the_checksum_of_their_chunk() {
        let extent = extent(1, b"abcdef");
        let mut chunks = WholeChunks::default();
        for (offset, bytes) in [(4, &b"ef"[..]), (0, b"ab"), (2, b"cd")] {
            add(&mut chunks, &extent, offset, bytes).unwrap();
        }
        assert!(chunks.0.is_empty(), "a chunk that was checked is forgotten");
        add(&mut chunks, &extent, 2, b"xxxx").unwrap();
        let error = add(&mut chunks, &extent, 0, b"ab").unwrap_err();
        assert_eq!(error.code(), ErrorCode::Corrupt);
    }

    #[test]
    fn number_of_remembered_chunks_is_bounded() {
        let mut chunks = WholeChunks::default();
        for chunk in 0..100 {
            add(&mut chunks, &extent(chunk, b"abcdef"), 0, b"xx").unwrap();
        }
        assert_eq!(chunks.0.len(), CHUNKS_MAX);
    }
}

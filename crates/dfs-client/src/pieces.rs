//! Runs of bytes that are fetched as a unit.

use std::sync::Arc;

use dfs_types::ErrorCode;

use crate::layout::{Extent, Layout};
use crate::{Client, Error, Target};

/// A run of bytes within one extent.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) extent: Arc<Extent>,
    /// Offset from the start of the extent.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Piece {
    /// Maximum length of a piece in bytes.
    pub(crate) const MAX: u64 = 4 << 20;

    /// Offset in the file.
    pub(crate) fn file_offset(&self) -> u64 {
        self.extent.file_offset + self.offset
    }
}

/// Splits a range of a file into pieces, in file order.
pub(crate) struct Pieces {
    pub(crate) layout: Layout,
    /// Offset of the next piece in the file.
    at: u64,
    extent: Option<Arc<Extent>>,
}

impl Pieces {
    pub(crate) async fn open(
        client: &Client,
        target: &Target,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Self, Error> {
        let layout = Layout::open(client, target, offset, length).await?;
        Ok(Self { at: offset, layout, extent: None })
    }

    pub(crate) async fn next(&mut self, client: &Client) -> Result<Option<Piece>, Error> {
        let end = self.layout.end();
        loop {
            if self.at >= end {
                return Ok(None);
            }
            let Some(extent) = self.extent.clone().filter(|extent| self.at < extent.end()) else {
                let extent = self.layout.next(client).await?;
                let covers =
                    |extent: &Extent| (extent.file_offset..extent.end()).contains(&self.at);
                let extent = extent.filter(covers).ok_or_else(|| {
                    let message = format!("no chunk is known for the byte at {}", self.at);
                    Error::new(ErrorCode::Internal, "the layout of the file", message)
                })?;
                self.extent = Some(Arc::new(extent));
                continue;
            };
            // Whole pieces after the first, so that no block is read twice.
            let offset = self.at - extent.file_offset;
            let boundary = (offset / Piece::MAX + 1) * Piece::MAX;
            let length = boundary.min(extent.length).min(end - extent.file_offset) - offset;
            self.at += length;
            return Ok(Some(Piece { extent, offset, length }));
        }
    }
}

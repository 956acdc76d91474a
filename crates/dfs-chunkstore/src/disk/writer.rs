//! Writes one chunk to a disk.
//!
//! Small chunks stay in memory until they are sealed. Longer ones become a file, written in pieces;
//! one piece is written while the next one is gathered, so that a writer holds about two.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_types::{BLOCK_SIZE, Crc32c, block_count};

use super::commit::NewRecord;
use super::index::Claim;
use super::record::Layout;
use super::space::Reservation;
use super::unsealed_file::UnsealedFile;
use super::volume::Disk;
use crate::thread_pool::{JobPlace, Running};
use crate::{ChunkHeader, ChunkSeal, ChunkWriter, SealedChunk, Space, StoreError};

/// Maximum length of chunks that share segments.
pub(super) const SMALL_MAX: u64 = 1 << 20;
/// Bytes gathered before a piece is written.
const PIECE: u64 = 1 << 20;

pub(super) struct Writer {
    disk: Arc<Disk>,
    header: ChunkHeader,
    length: u64,
    crcs: Vec<Crc32c>,
    /// Bytes not handed to the disk yet.
    gathered: Vec<Bytes>,
    gathered_bytes: u64,
    in_flight: Option<InFlight>,
    /// Taken by the job that ends the chunk.
    rights: Option<Rights>,
    part: Option<Arc<UnsealedFile>>,
    /// Slot of the pool for cleaning up the part.
    place: Option<JobPlace>,
}

/// Resources of the store held by a writer.
struct Rights {
    claim: Claim,
    reservation: Reservation,
}

struct InFlight {
    bytes: u64,
    result: Running<Result<Option<Space>, StoreError>>,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<Disk>,
        header: ChunkHeader,
        claim: Claim,
        reservation: Reservation,
    ) -> Self {
        Self {
            disk,
            header,
            length: 0,
            crcs: Vec::new(),
            gathered: Vec::new(),
            gathered_bytes: 0,
            in_flight: None,
            rights: Some(Rights { claim, reservation }),
            part: None,
            place: None,
        }
    }

    fn mismatch(&self, what: String) -> StoreError {
        StoreError::Mismatch { chunk: self.header.chunk, what }
    }

    fn check(&self, data: &Bytes, crcs: &[Crc32c]) -> Result<(), StoreError> {
        let (length, max) = (self.length + data.len() as u64, self.header.max_length);
        if length > max {
            return Err(self.mismatch(format!("{length} bytes exceed the {max} announced")));
        }
        if !self.length.is_multiple_of(BLOCK_SIZE as u64) {
            return Err(self.mismatch("bytes follow an incomplete block".to_owned()));
        }
        if block_count(data.len() as u64) != crcs.len() as u64 {
            let (size, count) = (data.len(), crcs.len());
            return Err(self.mismatch(format!("{size} bytes came with {count} checksums")));
        }
        Ok(())
    }

    /// Waits for the piece in flight.
    async fn landed(&mut self) -> Result<(), StoreError> {
        if let Some(InFlight { bytes, result }) = &mut self.in_flight {
            let (bytes, result) = (*bytes, self.disk.unless_hung(result).await);
            self.in_flight = None;
            let found = result???;
            if let Some(rights) = &mut self.rights {
                rights.reservation.written(bytes, found);
            }
        }
        Ok(())
    }

    /// Returns the checksums of the gathered bytes.
    fn gathered_crcs(&self) -> Vec<Crc32c> {
        let count = block_count(self.gathered_bytes) as usize;
        self.crcs[self.crcs.len() - count..].to_vec()
    }

    async fn write_gathered(&mut self) -> Result<(), StoreError> {
        self.landed().await?;
        if self.place.is_none() {
            self.place = Some(self.disk.unless_hung(self.disk.pool.reserve()).await?);
        }
        let permit = self.disk.admit(self.gathered_bytes).await?;
        let crcs = self.gathered_crcs();
        let data = std::mem::take(&mut self.gathered);
        let bytes = std::mem::take(&mut self.gathered_bytes);
        let part = Arc::clone(self.part.get_or_insert_with(|| {
            Arc::new(UnsealedFile::new(Arc::clone(&self.disk), self.header.chunk))
        }));
        let disk = Arc::clone(&self.disk);
        let started = self.disk.pool.start(move || {
            let written = part.write(&data, &crcs);
            drop(permit);
            written.map(|()| disk.found_space())
        });
        let result = self.disk.unless_hung(started).await?;
        self.in_flight = Some(InFlight { bytes, result });
        Ok(())
    }

    async fn seal_part(
        &mut self,
        part: Arc<UnsealedFile>,
        rights: Rights,
        seal: ChunkSeal,
    ) -> Result<SealedChunk, StoreError> {
        let permit = self.disk.admit(self.gathered_bytes).await?;
        let tail_crcs = self.gathered_crcs();
        let (tail, crcs) = (std::mem::take(&mut self.gathered), std::mem::take(&mut self.crcs));
        let (disk, header) = (Arc::clone(&self.disk), self.header.clone());
        let Rights { claim, reservation } = rights;
        let job = move || {
            let sealed = part.seal(&tail, &tail_crcs, &header, seal, &crcs);
            match &sealed {
                Ok(_) => {
                    reservation.seal(Layout::of_file(header.path.len() as u16, seal.length).end);
                }
                Err(_) => part.abandon(),
            }
            disk.refresh_space();
            drop((claim, permit));
            sealed
        };
        self.disk.run(job).await?
    }
}

#[async_trait]
impl ChunkWriter for Writer {
    fn length(&self) -> u64 {
        self.length
    }

    async fn append(&mut self, data: Bytes, crcs: Vec<Crc32c>) -> Result<(), StoreError> {
        if data.is_empty() {
            return Ok(());
        }
        self.check(&data, &crcs)?;
        let size = data.len() as u64;
        let path_length = self.header.path.len() as u16;
        let wanted = Layout::of_file(path_length, self.length + size).end;
        let rights = self.rights.as_mut().ok_or(StoreError::Closed)?;
        rights.reservation.grow_to(wanted, self.header.chunk)?;
        self.length += size;
        self.crcs.extend(crcs);
        self.gathered.push(data);
        self.gathered_bytes += size;
        let is_whole_blocks = size.is_multiple_of(BLOCK_SIZE as u64);
        if self.length > SMALL_MAX && self.gathered_bytes >= PIECE && is_whole_blocks {
            self.write_gathered().await?;
        }
        Ok(())
    }

    async fn seal(mut self: Box<Self>, seal: ChunkSeal) -> Result<SealedChunk, StoreError> {
        if seal.length != self.length {
            let what = format!("its length is {}, not {}", self.length, seal.length);
            return Err(self.mismatch(what));
        }
        self.landed().await?;
        let rights = self.rights.take().ok_or(StoreError::Closed)?;
        if self.length > SMALL_MAX {
            let part = self.part.take();
            let part = part.unwrap_or_else(|| {
                Arc::new(UnsealedFile::new(Arc::clone(&self.disk), self.header.chunk))
            });
            return self.seal_part(part, rights, seal).await;
        }
        if Crc32c::of_whole(&self.crcs, self.length) != Some(seal.crc32c) {
            return Err(self.mismatch(format!("its crc32c is not {}", seal.crc32c)));
        }
        let record = NewRecord {
            header: self.header.clone(),
            seal,
            crcs: std::mem::take(&mut self.crcs),
            data: std::mem::take(&mut self.gathered),
            reservation: rights.reservation,
            claim: rights.claim,
        };
        self.disk.seal_record(record).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A job may still be writing; the clean-up waits for it on the pool, and only then can the
        // chunk be claimed again.
        if let (Some(part), Some(place)) = (self.part.take(), self.place.take()) {
            let rights = self.rights.take();
            self.disk.pool.detach(place, move |_place| {
                part.abandon();
                drop(rights);
            });
        }
    }
}

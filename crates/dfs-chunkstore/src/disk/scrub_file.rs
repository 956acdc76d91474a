//! The file on a disk that records how far its scrub is.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use dfs_types::{ChunkId, Crc32c, DiskId, Timestamp, WholePass};

use super::DiskStore;
use super::identity_file::replace_file;
use super::volume::Disk;
use crate::{Fs, Opening, ScrubProgress, ScrubStore, StoreError};

const NAME: &str = "dfs-scrub";
const NAME_NEW: &str = "dfs-scrub.new";
/// Anything longer is damaged.
const LENGTH_MAX: usize = 4 << 10;
const FIRST_LINE: &str = "dfs scrub, level 1";

fn encode(progress: &ScrubProgress) -> String {
    let ScrubProgress { request, is_requested, after, spent_ms, replicas, bytes, errors, last } =
        progress;
    let after = after.map_or_else(|| "none".to_owned(), |after| after.to_string());
    let mut text = format!(
        "{FIRST_LINE}\nrequest {request}\nis_requested {is_requested}\nafter {after}\n\
         spent_ms {spent_ms}\nreplicas {replicas}\nbytes {bytes}\nerrors {errors}\n"
    );
    if let Some(WholePass { end, bytes, errors }) = last {
        let end = end.millis();
        let _ = write!(text, "last_end_ms {end}\nlast_bytes {bytes}\nlast_errors {errors}\n");
    }
    let crc = Crc32c::of(text.as_bytes());
    let _ = writeln!(text, "crc32c {crc}");
    text
}

/// Parses the progress; `None` if it is damaged.
fn decode(text: &str) -> Option<ScrubProgress> {
    let (body, crc) = text.split_at(text.rfind("crc32c ")?);
    if crc != format!("crc32c {}\n", Crc32c::of(body.as_bytes())) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    fn field<T: FromStr>(body: &str, name: &str) -> Option<T> {
        let mut lines = body.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
    }
    let after: String = field(body, "after")?;
    let after = match after.as_str() {
        "none" => None,
        chunk => Some(ChunkId::from_str(chunk).ok()?),
    };
    let last = match field(body, "last_end_ms") {
        Some(end) => Some(WholePass {
            end: Timestamp::from_millis(end),
            bytes: field(body, "last_bytes")?,
            errors: field(body, "last_errors")?,
        }),
        None => None,
    };
    Some(ScrubProgress {
        request: field(body, "request")?,
        is_requested: field(body, "is_requested")?,
        after,
        spent_ms: field(body, "spent_ms")?,
        replicas: field(body, "replicas")?,
        bytes: field(body, "bytes")?,
        errors: field(body, "errors")?,
        last,
    })
}

/// Reads the progress of a disk. A damaged one is as good as none: the disk is read from the
/// beginning.
fn read(fs: &dyn Fs, folder: &Path) -> io::Result<ScrubProgress> {
    let path = folder.join(NAME);
    let bytes = match fs.open(&path, Opening::Existing) {
        Ok(file) => file.read_at(0, LENGTH_MAX)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(ScrubProgress::default());
        }
        Err(error) => return Err(error),
    };
    let progress = std::str::from_utf8(&bytes).ok().and_then(decode);
    Ok(progress.unwrap_or_else(|| {
        tracing::warn!(file = %path.display(), "the scrub progress is damaged; starting over");
        ScrubProgress::default()
    }))
}

impl DiskStore {
    async fn on_disk<T, F>(&self, disk: DiskId, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    {
        self.check_open()?;
        let disk = self.disks.iter().find(|it| it.id == disk).ok_or(StoreError::NoDisk(disk))?;
        if disk.is_out_of_service() {
            return Err(disk.out_of_service());
        }
        let on = Arc::clone(disk);
        disk.run(move || job(&on)).await?
    }
}

#[async_trait]
impl ScrubStore for DiskStore {
    async fn scrub_progress(&self, disk: DiskId) -> Result<ScrubProgress, StoreError> {
        let read = |disk: &Disk| {
            let found = read(&*disk.fs, &disk.folder);
            found.map_err(|error| disk.fault("reading the scrub progress", error))
        };
        self.on_disk(disk, read).await
    }

    async fn store_scrub_progress(
        &self,
        disk: DiskId,
        progress: ScrubProgress,
    ) -> Result<(), StoreError> {
        let write = move |disk: &Disk| {
            let written = replace_file(&*disk.fs, &disk.folder, NAME, NAME_NEW, encode(&progress));
            written.map_err(|error| disk.fault("writing the scrub progress", error))
        };
        self.on_disk(disk, write).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimFs;

    fn progress() -> ScrubProgress {
        ScrubProgress {
            request: 3,
            is_requested: true,
            after: Some(ChunkId(0xab)),
            spent_ms: 17,
            replicas: 4,
            bytes: 1 << 40,
            errors: 2,
            last: Some(WholePass { end: Timestamp::from_millis(9), bytes: 5, errors: 1 }),
        }
    }

    #[test]
    fn scrub_progress_round_trips_and_damage_is_detected() {
        for progress in [progress(), ScrubProgress::default()] {
            let text = encode(&progress);
            assert_eq!(decode(&text), Some(progress));
            for at in 0..text.len() {
                let mut bad = text.clone().into_bytes();
                bad[at] ^= 1;
                assert_eq!(decode(&String::from_utf8(bad).unwrap()), None, "byte {at}");
                assert_eq!(decode(&text[..at]), None, "cut at {at}");
            }
        }
    }

    #[test]
    fn damaged_scrub_progress_starts_over() {
        let (fs, folder) = (SimFs::new(), Path::new("/"));
        assert_eq!(read(&fs, folder).unwrap(), ScrubProgress::default());
        replace_file(&fs, folder, NAME, NAME_NEW, encode(&progress())).unwrap();
        fs.crash();
        assert_eq!(read(&fs, folder).unwrap(), progress());
        fs.flip_bit(&folder.join(NAME), 30, 0).unwrap();
        assert_eq!(read(&fs, folder).unwrap(), ScrubProgress::default());
    }
}

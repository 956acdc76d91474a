//! What the disk allows: files written and synced, each by itself, as many at a time as repair
//! builds.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::load::{LARGE, SMALL};

/// Threads that write small and large files.
const THREADS: (usize, usize) = (32, 4);

/// Times of writing and syncing files.
#[derive(Debug, Clone, Copy)]
pub struct SyncedWrites {
    /// Number of small files and the time that they took.
    pub small: (usize, Duration),
    /// Number of large files and the time that they took.
    pub large: (usize, Duration),
}

impl SyncedWrites {
    /// Returns the time of all.
    fn time(&self) -> Duration {
        self.small.1 + self.large.1
    }

    /// Returns the time that so many small and large files take.
    pub fn time_of(&self, small: u64, large: u64) -> Duration {
        let part = |(count, time): (usize, Duration), of: u64| {
            time.mul_f64(of as f64 / count.max(1) as f64)
        };
        part(self.small, small) + part(self.large, large)
    }
}

impl fmt::Display for SyncedWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |(count, time): (usize, Duration), length: usize| {
            (count * length) as f64 / time.as_secs_f64().max(1e-9)
        };
        write!(
            f,
            "{:.1} s, {:.0} small files/s, {:.0} MiB/s of large ones",
            self.time().as_secs_f64(),
            rate(self.small, 1),
            rate(self.large, LARGE) / f64::from(1 << 20)
        )
    }
}

/// Writes and syncs files in a directory, and removes them.
pub(super) fn measure(folder: &Path, small: usize, large: usize) -> io::Result<SyncedWrites> {
    fs::create_dir_all(folder)?;
    let of_small = write(folder, small, SMALL, THREADS.0)?;
    let of_large = write(folder, large, LARGE, THREADS.1)?;
    fs::remove_dir_all(folder)?;
    Ok(SyncedWrites { small: (small, of_small), large: (large, of_large) })
}

fn write(folder: &Path, count: usize, length: usize, threads: usize) -> io::Result<Duration> {
    let (next, bytes) = (AtomicUsize::new(0), vec![7; length]);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let mut file = File::create(folder.join(format!("{length}-{number}")))?;
            file.write_all(&bytes)?;
            file.sync_all()?;
        }
    };
    let started = Instant::now();
    let written: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let failed = || Err(io::Error::other("a writer panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed())).collect()
    });
    let took = started.elapsed();
    written.into_iter().collect::<io::Result<()>>()?;
    Ok(took)
}

//! Measures how long a disk with many small chunks takes to open, and the memory that takes:
//! `cargo xtask bench start`. Prints Markdown.
//!
//! Each measurement is a separate process, which opens the store and ends. The page cache is warm:
//! it holds what was written. Preparing 1,000,000 chunks takes 4 GiB and some minutes.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_chunkstore::{ChunkStore as _, Config, DiskStore, OsFs, Pool, conformance};
use dfs_types::{ChunkId, OsRandom};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CHUNKS: u64 = 1_000_000;
const LENGTH: usize = 100;
const ROUNDS: usize = 3;
/// Chunks written at a time, which share commits.
const WRITERS: usize = 256;
const THREADS: usize = 2;

/// What one start took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) chunks: u64,
    pub(crate) took: Duration,
    /// Resident memory of the process afterwards, and its peak.
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(CHUNKS),
        [chunks] => compare(chunks.parse()?),
        ["open", folder] => {
            let Start { chunks, took, resident_kib, peak_kib } =
                block_on(start(Path::new(folder)))?;
            println!("{chunks} {} {resident_kib} {peak_kib}", took.as_secs_f64());
            Ok(())
        }
        _ => Err("usage: start [CHUNKS]".into()),
    }
}

fn block_on<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(what)
}

async fn open(folder: &Path) -> Result<DiskStore> {
    let config =
        Config { read_within: Duration::from_hours(1), ..Config::new([folder.to_owned()]) };
    let (fs, pool) = (Arc::new(OsFs::new()), Pool::threads(THREADS));
    Ok(DiskStore::open(config, fs, pool, Arc::new(OsRandom)).await?)
}

/// Fills a disk with small chunks.
pub(crate) async fn prepare(folder: &Path, chunks: u64) -> Result<()> {
    let store = open(folder).await?;
    let puts = stream::iter(0..chunks).map(|number| {
        let store = &store;
        // Like real ones, they share the bits of the time and differ in the last ones.
        let chunk = ChunkId(0x0199_0000 << 96 | u128::from(number));
        async move { conformance::put(store, chunk, LENGTH).await }
    });
    puts.buffer_unordered(WRITERS).try_for_each(|_| async { Ok(()) }).await?;
    store.close(Duration::from_mins(1)).await;
    Ok(())
}

/// Opens a store and ends it as a crash does.
pub(crate) async fn start(folder: &Path) -> Result<Start> {
    let started = Instant::now();
    let store = open(folder).await?;
    let took = started.elapsed();
    let chunks = store.usage().iter().map(|disk| disk.chunks).sum();
    let (resident_kib, peak_kib) = (memory_kib("VmRSS:")?, memory_kib("VmHWM:")?);
    Ok(Start { chunks, took, resident_kib, peak_kib })
}

/// Removes the index files of all segments.
pub(crate) fn remove_indexes(folder: &Path) -> Result<()> {
    for file in std::fs::read_dir(folder.join("segments"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn memory_kib(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.ok_or("/proc/self/status has no such line")?.parse()?)
}

fn compare(chunks: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let started = Instant::now();
    block_on(prepare(folder.path(), chunks))?;
    eprintln!("{chunks} chunks written in {:.0} s", started.elapsed().as_secs_f64());
    println!("| median of {ROUNDS}, {chunks} chunks | start | memory | peak |\n|---|---|---|---|");
    for (what, without_indexes) in [("index files", false), ("heads", true)] {
        let mut starts = Vec::new();
        for _ in 0..ROUNDS {
            if without_indexes {
                remove_indexes(folder.path())?;
            }
            starts.push(in_process(folder.path(), chunks)?);
        }
        starts.sort_by_key(|start| start.took);
        let Start { took, resident_kib, peak_kib, .. } = starts[ROUNDS / 2];
        println!(
            "| {what} | {:.2} s | {} MiB | {} MiB |",
            took.as_secs_f64(),
            resident_kib >> 10,
            peak_kib >> 10
        );
    }
    Ok(())
}

fn in_process(folder: &Path, expected: u64) -> Result<Start> {
    let output = Command::new(std::env::current_exe()?).arg("open").arg(folder).output()?;
    let text = String::from_utf8(output.stdout)?;
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [chunks, took, resident_kib, peak_kib] = fields[..] else {
        return Err(format!("a start failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    };
    let start = Start {
        chunks: chunks.parse()?,
        took: Duration::from_secs_f64(took.parse()?),
        resident_kib: resident_kib.parse()?,
        peak_kib: peak_kib.parse()?,
    };
    if start.chunks != expected {
        return Err(format!("{} of {expected} chunks were found", start.chunks).into());
    }
    Ok(start)
}

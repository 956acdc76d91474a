//! `dfs bench`.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use dfs_client::{
    Client, DeleteOptions, Follow, GetOptions, MakeDirectoryOptions, PutOptions, PutSource,
};
use dfs_types::{Attributes, ByteSize, DfsPath, Name, OsRandom, Random as _};
use serde_json::json;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::error::{Error, Result, remote_path};

/// Arguments of `dfs bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Works in a new directory, which is deleted at the end.

Examples:
  dfs bench
  dfs bench --clients 64 --files 20000
  dfs bench --only streams --stream-size 4GiB --json")]
pub(crate) struct BenchArgs {
    /// Parent of the new directory.
    #[arg(long, default_value = "/", value_name = "PATH")]
    below: OsString,
    /// Number of small files.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    files: u32,
    /// Bytes of a small file.
    #[arg(long, default_value = "4KiB", value_name = "SIZE")]
    size: ByteSize,
    /// Bytes of the large file.
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    stream_size: ByteSize,
    /// Concurrent calls.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    clients: u16,
    /// Measure only these; what they depend on runs too, but is not shown.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
}

/// Measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// Putting small files.
    Creates,
    /// Getting them.
    Reads,
    /// Reading their attributes.
    Stats,
    /// Listing their directory.
    Lists,
    /// Putting and getting one large file.
    Streams,
}

/// Number of listings of the directory and of streams of the large file, each way.
const REPEATS: usize = 5;
/// Maximum length of a small file: they are kept in memory.
const SIZE_MAX: u64 = 16 << 20;

pub(crate) async fn run(args: BenchArgs, cx: &Context) -> Result<()> {
    if args.size.0 > SIZE_MAX {
        return Err(Error::usage("a small file is limited to 16MiB")
            .hint("--stream-size is for the large one"));
    }
    let mut bytes = [0; 8];
    OsRandom.fill(&mut bytes);
    let name =
        Name::new(format!("dfs-bench-{:016x}", u64::from_le_bytes(bytes))).map_err(Error::usage)?;
    let top = remote_path(&args.below)?.join(&name).map_err(Error::usage)?;
    let attributes = Attributes { mode: 0o755, ..Context::own_attributes() };
    cx.client
        .make_directory(&top, MakeDirectoryOptions::default().attributes(attributes).parents(true))
        .await?;
    let result = measure(&args, &top, cx).await;
    cx.client.delete(&top, DeleteOptions::default().recursive(true).now(true)).await?;
    result
}

async fn measure(args: &BenchArgs, top: &DfsPath, cx: &Context) -> Result<()> {
    let wants = |measure| args.only.is_empty() || args.only.contains(&measure);
    if !cx.out.is_json {
        cx.out.line(format_args!(
            "{:<14} {:>8} {:>12} {:>10} {:>10} {:>10} {:>10}",
            "", "calls", "rate", "p50", "p90", "p99", "max"
        ));
    }
    let paths: Arc<[DfsPath]> = (0..args.files)
        .map(|n| Name::new(format!("{n:06}")).and_then(|name| top.join(&name)))
        .collect::<std::result::Result<_, _>>()
        .map_err(Error::usage)?;
    let small = noise(args.size.0);
    let attributes = Context::own_attributes();
    if [Measure::Creates, Measure::Reads, Measure::Stats, Measure::Lists].into_iter().any(wants) {
        let created = many(args, cx, &paths, move |client, path| {
            let source = PutSource::bytes(small.clone());
            async move {
                let options = PutOptions::default().attributes(attributes);
                client.put(&path, source, options).await.map(drop)
            }
        })
        .await?;
        if wants(Measure::Creates) {
            show(cx, "creates", &created, None);
        }
    }
    if wants(Measure::Reads) {
        let read = many(args, cx, &paths, |client, path| async move {
            client.read_range(&path, 0, SIZE_MAX).await.map(drop)
        });
        show(cx, "reads", &read.await?, None);
    }
    if wants(Measure::Stats) {
        let looked = many(args, cx, &paths, |client, path| async move {
            client.stat(&path, Follow::No).await.map(drop)
        });
        show(cx, "stats", &looked.await?, None);
    }
    if wants(Measure::Lists) {
        let listed = repeated(async || {
            let mut listing = cx.client.list(top);
            while listing.next().await?.is_some() {}
            Ok(())
        });
        let entries = u64::from(args.files) * REPEATS as u64;
        show(cx, "lists", &listed.await?, Some((entries, "entries")));
    }
    if wants(Measure::Streams) {
        let path = Name::new("stream").and_then(|name| top.join(&name)).map_err(Error::usage)?;
        let size = args.stream_size.0;
        let written = repeated(async || {
            let source = PutSource::reader(tokio::io::AsyncReadExt::take(Repeat::new(), size));
            let options = PutOptions::default().attributes(attributes);
            cx.client.put(&path, source, options).await.map(drop)
        });
        let bytes = size.saturating_mul(REPEATS as u64);
        show(cx, "stream put", &written.await?, Some((bytes, "bytes")));
        let read = repeated(async || {
            let mut reader = cx.client.get(&path, GetOptions::default()).await?;
            while reader.next().await?.is_some() {}
            Ok(())
        });
        show(cx, "stream get", &read.await?, Some((bytes, "bytes")));
    }
    Ok(())
}

/// Time of each call, and of all together.
struct Measured {
    latencies: Vec<Duration>,
    elapsed: Duration,
}

/// Repeats a call sequentially.
async fn repeated(
    call: impl AsyncFn() -> std::result::Result<(), dfs_client::Error>,
) -> Result<Measured> {
    let started = Instant::now();
    let mut latencies = Vec::new();
    for _ in 0..REPEATS {
        let started = Instant::now();
        call().await?;
        latencies.push(started.elapsed());
    }
    latencies.sort_unstable();
    Ok(Measured { latencies, elapsed: started.elapsed() })
}

/// Makes one call for each path, `clients` at a time.
async fn many<F, R>(
    args: &BenchArgs,
    cx: &Context,
    paths: &Arc<[DfsPath]>,
    call: F,
) -> Result<Measured>
where
    F: Fn(Client, DfsPath) -> R + Clone + Send + 'static,
    R: Future<Output = std::result::Result<(), dfs_client::Error>> + Send + 'static,
{
    let started = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..args.clients {
        let (client, paths, next, call) =
            (cx.client.clone(), paths.clone(), next.clone(), call.clone());
        clients.spawn(async move {
            let mut latencies = Vec::new();
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let started = Instant::now();
                call(client.clone(), path.clone()).await?;
                latencies.push(started.elapsed());
            }
            Ok::<_, dfs_client::Error>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = clients.join_next().await {
        latencies.extend(ended.map_err(|e| Error::new(dfs_types::ErrorCode::Internal, e))??);
    }
    latencies.sort_unstable();
    Ok(Measured { latencies, elapsed: started.elapsed() })
}

fn show(cx: &Context, what: &str, measured: &Measured, amount: Option<(u64, &str)>) {
    let (count, unit) = amount.unwrap_or((measured.latencies.len() as u64, "calls"));
    let rate = count as f64 / measured.elapsed.as_secs_f64().max(1e-9);
    let at = |percent: usize| {
        let last = measured.latencies.len().saturating_sub(1);
        measured.latencies.get(last * percent / 100).copied().unwrap_or_default()
    };
    if cx.out.is_json {
        cx.out.json(&json!({
            "measure": what,
            "calls": measured.latencies.len(),
            "unit": unit,
            "count": count,
            "elapsed_ms": measured.elapsed.as_millis() as u64,
            "per_second": rate,
            "p50_us": at(50).as_micros() as u64,
            "p90_us": at(90).as_micros() as u64,
            "p99_us": at(99).as_micros() as u64,
            "max_us": at(100).as_micros() as u64,
        }));
        return;
    }
    let rate = match unit {
        "bytes" => format!("{}/s", ByteSize(rate as u64)),
        "entries" => format!("{rate:.0} names/s"),
        _ => format!("{rate:.0}/s"),
    };
    let ms = |percent| format!("{:.2} ms", at(percent).as_secs_f64() * 1_000.0);
    let [p50, p90, p99, max] = [50, 90, 99, 100].map(ms);
    cx.out.line(format_args!(
        "{what:<14} {:>8} {rate:>12} {p50:>10} {p90:>10} {p99:>10} {max:>10}",
        measured.latencies.len()
    ));
}

/// Returns incompressible bytes.
fn noise(length: u64) -> Bytes {
    let mut bytes = vec![0; length as usize];
    OsRandom.fill(&mut bytes);
    bytes.into()
}

/// A megabyte of noise, repeated.
struct Repeat {
    noise: Bytes,
    position: usize,
}

impl Repeat {
    fn new() -> Self {
        Self { noise: noise(1 << 20), position: 0 }
    }
}

impl tokio::io::AsyncRead for Repeat {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let start = self.position;
        let end = self.noise.len().min(start + buffer.remaining());
        buffer.put_slice(&self.noise[start..end]);
        self.position = end % self.noise.len();
        std::task::Poll::Ready(Ok(()))
    }
}

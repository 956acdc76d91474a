//! Measures dfs, another system, the disk and a TCP stream, alternating in one run.
//!
//! Both systems run as processes on loopback with their data on the same file system: dfs with its
//! defaults (three replicas, each fsynced before a put returns), and either SeaweedFS with its
//! defaults and three copies (replication 002, no fsync) or another build of dfs.

mod dfs;
mod machine;
mod seaweedfs;

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use dfs::Own;
use machine::machine;
use seaweedfs::SeaweedFs;

/// Rounds with small files, whose figures vary most.
const ROUNDS: usize = 5;
/// Rounds with the large file as well: each leaves 6 GiB on the disk.
const LARGE_ROUNDS: usize = 3;
const BIG: u64 = 1 << 30;
const SMALL_FILES: usize = 4_000;
const CLIENTS: usize = 16;

/// A running file system under measurement. Each call returns how long the work took.
trait System {
    /// Stores the file for the given round.
    fn put(&self, file: &Path, round: usize) -> Result<Duration>;
    /// Reads back what [`Self::put`] stored in that round.
    fn get(&self, round: usize) -> Result<Duration>;
    /// Creates [`SMALL_FILES`] files of 4 KiB with [`CLIENTS`] clients; `small` is a directory of
    /// them.
    fn creates(&self, small: &Path, round: usize) -> Result<Duration>;
    /// Reads back what [`Self::creates`] stored, below `data` if it writes files.
    fn reads(&self, data: &Path, round: usize) -> Result<Duration>;
}

/// Kills its process when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// One measurement: its figures, one per round.
struct Row {
    what: &'static str,
    unit: &'static str,
    other: Vec<f64>,
    own: Vec<f64>,
}

pub(crate) const USAGE: &str = "[metadata | start [CHUNKS] | against DFS_BINARY] (compares dfs \
                                with SeaweedFS or another build of dfs, or the metadata engines, or \
                                measures the start of a full disk; prints Markdown)";

/// Runs all measurements and prints Markdown.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let work = root.join("target/bench");
    fs::create_dir_all(&work)?;
    match arguments {
        [] => {
            needs(&["fio", "curl"])?;
            let weed = seaweedfs::install(&work)?;
            compare(root, &work, &format!("SeaweedFS ({})", seaweedfs::DURABILITY), |data| {
                Ok(Box::new(SeaweedFs::start(&weed, data)?))
            })
        }
        [only] if only == "metadata" => example(root, &work, "dfs-engines", "metadata", &[]),
        [first, chunks @ ..] if first == "start" && chunks.len() < 2 => {
            example(root, &work, "dfs-chunkstore", "start", chunks)
        }
        [against, binary] if against == "against" => {
            needs(&["fio"])?;
            let binary = fs::canonicalize(binary).with_context(|| format!("find {binary}"))?;
            compare(root, &work, "the other build of dfs", |data| {
                Ok(Box::new(Own::start(&binary, &data.join("other"))?))
            })
        }
        _ => bail!("usage: bench {USAGE}"),
    }
}

fn needs(programs: &[&str]) -> Result<()> {
    for program in programs {
        let found = Command::new(program).arg("--version").output();
        found.with_context(|| format!("{program} is needed: apt-get install {program}"))?;
    }
    Ok(())
}

fn compare(
    root: &Path,
    work: &Path,
    name: &str,
    start: impl FnOnce(&Path) -> Result<Box<dyn System>>,
) -> Result<()> {
    let dfs = crate::process::release_dfs(root)?;
    let data = tempfile_in(work)?;
    let result = measure(name, start, &dfs, &data);
    fs::remove_dir_all(&data).context("remove the data of the run")?;
    println!("{}", result?);
    Ok(())
}

/// Runs a measurement that is an example of a crate, with its data below `work`.
fn example(
    root: &Path,
    work: &Path,
    package: &str,
    name: &str,
    arguments: &[String],
) -> Result<()> {
    let run = ["run", "--quiet", "--release", "--package", package, "--example", name, "--"];
    let mut command = crate::process::cargo(root, &run);
    let status = command.args(arguments).env("TMPDIR", work).status().context("run the example")?;
    ensure!(status.success(), "the measurement failed");
    println!("\nmachine: {}", machine()?);
    Ok(())
}

fn measure(
    name: &str,
    start: impl FnOnce(&Path) -> Result<Box<dyn System>>,
    dfs: &Path,
    data: &Path,
) -> Result<String> {
    let big = data.join("big");
    write_noise(&big, BIG)?;
    let other = start(data)?;
    let own = Own::start(dfs, &data.join("dfs"))?;
    let mut put = Row::new("put of 1 GiB", "MiB/s");
    let mut warm = Row::new("get of 1 GiB, page cache warm", "MiB/s");
    let mut cold = Row::new("get of 1 GiB, page cache dropped", "MiB/s");
    let mut creates = Row::new("creates of 4 KiB, 16 clients", "files/s");
    let mut reads = Row::new("reads of 4 KiB, 16 clients", "files/s");
    let small = data.join("small");
    write_small_files(&small)?;
    let mib = |elapsed: Duration| BIG as f64 / f64::from(1 << 20) / elapsed.as_secs_f64();
    let per_second = |elapsed: Duration| SMALL_FILES as f64 / elapsed.as_secs_f64();
    for round in 0..ROUNDS {
        for is_own in if round % 2 == 0 { [false, true] } else { [true, false] } {
            let system: &dyn System = if is_own { &own } else { &*other };
            if round < LARGE_ROUNDS {
                settle(&big)?;
                put.note(is_own, mib(system.put(&big, round)?));
                // Not every system leaves what it wrote in the page cache.
                system.get(round)?;
                warm.note(is_own, mib(system.get(round)?));
                drop_caches()?;
                cold.note(is_own, mib(system.get(round)?));
            }
            creates.note(is_own, per_second(system.creates(&small, round)?));
            reads.note(is_own, per_second(system.reads(data, round)?));
        }
    }
    let mut text = String::new();
    writeln!(text, "machine: {}", machine()?)?;
    writeln!(text, "other: {name}")?;
    writeln!(text, "dfs: replication factor 3, every replica fsynced before a put returns")?;
    writeln!(text, "disk, sequential direct writes: {:.0} MiB/s", machine::disk_speed(data)?)?;
    writeln!(text, "TCP stream on loopback: {:.0} MiB/s\n", machine::tcp_speed()?)?;
    writeln!(
        text,
        "| median of {LARGE_ROUNDS}, small files of {ROUNDS} | other | dfs | ratio |\n|---|---|---|---|"
    )?;
    for row in [put, warm, cold, creates, reads] {
        let (theirs, ours) = (median(&row.other), median(&row.own));
        let (what, unit) = (row.what, row.unit);
        writeln!(
            text,
            "| {what} | {theirs:.0} {unit} | {ours:.0} {unit} | {:.2} |",
            ours / theirs
        )?;
    }
    Ok(text)
}

impl Row {
    fn new(what: &'static str, unit: &'static str) -> Self {
        Self { what, unit, other: Vec::new(), own: Vec::new() }
    }

    fn note(&mut self, is_own: bool, figure: f64) {
        let whose = if is_own { "dfs" } else { "other" };
        eprintln!("{whose} {}: {figure:.0} {}", self.what, self.unit);
        if is_own { &mut self.own } else { &mut self.other }.push(figure);
    }
}

fn timed(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let status =
        command.stdout(Stdio::null()).status().with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(started.elapsed())
}

fn tempfile_in(work: &Path) -> Result<PathBuf> {
    let data = work.join(format!("data-{}", std::process::id()));
    fs::create_dir(&data).context("make a directory for the data")?;
    Ok(data)
}

/// Writes incompressible bytes.
fn write_noise(path: &Path, length: u64) -> Result<()> {
    let mut source = fs::File::open("/dev/urandom")?.take(length);
    std::io::copy(&mut source, &mut fs::File::create(path)?)?;
    Ok(())
}

fn write_small_files(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    for n in 0..SMALL_FILES {
        write_noise(&folder.join(n.to_string()), 4_096)?;
    }
    Ok(())
}

fn drop_caches() -> Result<()> {
    timed(&mut Command::new("sync"))?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the page cache (needs root)")
}

/// Drops other data from the page cache, and loads the source of a put into it.
fn settle(source: &Path) -> Result<()> {
    drop_caches()?;
    std::io::copy(&mut fs::File::open(source)?, &mut std::io::sink())?;
    Ok(())
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "polls a server of another project")]
    std::thread::sleep(Duration::from_millis(200));
}

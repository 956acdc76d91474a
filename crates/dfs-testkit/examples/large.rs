//! Puts and gets one file of 4 GiB, compares it, and reports the memory used: `cargo xtask large`.
//! Fails when a process uses more than 256 MiB.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dfs_testkit::process::{Cluster, Settings, peak_memory_of};
use dfs_types::{Random as _, SeededRandom};

const SIZE: u64 = 4 << 30;
const MEMORY_MAX: u64 = 256 << 20;
const WITHIN: Duration = Duration::from_mins(10);

fn main() {
    let binary = std::env::args().nth(1).expect("the path of dfs");
    let cluster = Cluster::start(binary, Settings::default());
    let (local, back) = (cluster.folder().join("file"), cluster.folder().join("back"));
    write_noise(&local).expect("a file can be written");
    for (what, mut command) in [
        ("put", with(cluster.command(["put"]), &local, Path::new("/file"))),
        ("get", with(cluster.command(["get"]), Path::new("/file"), &back)),
    ] {
        let started = Instant::now();
        let peak = peak_memory_of(&mut command, WITHIN);
        let seconds = started.elapsed().as_secs_f64();
        let rate = SIZE as f64 / f64::from(1 << 20) / seconds;
        tell(what, peak);
        println!("{what} of 4 GiB: {seconds:.1} s, {rate:.0} MiB/s");
    }
    for server in cluster.datanodes.iter().chain([&cluster.coordinator]) {
        tell("a server", server.peak_memory());
    }
    let same = Command::new("cmp").args([&local, &back]).status().expect("cmp runs");
    assert!(same.success(), "the file came back different");
}

fn with(mut command: Command, from: &Path, to: &Path) -> Command {
    command.arg(from).arg(to);
    command
}

fn tell(who: &str, peak: u64) {
    println!("{who} used at most {} MiB (VmHWM)", peak >> 20);
    assert!(peak < MEMORY_MAX, "{who} used {} MiB", peak >> 20);
}

fn write_noise(path: &Path) -> std::io::Result<()> {
    let random = SeededRandom::new(4);
    let mut file = BufWriter::new(File::create(path)?);
    let mut block = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        random.fill(&mut block);
        file.write_all(&block)?;
    }
    file.flush()
}

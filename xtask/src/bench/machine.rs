//! Capabilities of the machine, for comparison with the figures.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

pub(super) fn disk_speed(data: &Path) -> Result<f64> {
    let file = data.join("fio");
    let output = Command::new("fio")
        .args(["--name=write", "--rw=write", "--bs=1M", "--size=1G", "--direct=1", "--end_fsync=1"])
        .args(["--iodepth=4", "--ioengine=libaio", "--output-format=json"])
        .arg(format!("--filename={}", file.display()))
        .output()
        .context("run fio (apt-get install fio)")?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    fs::remove_file(file)?;
    report["jobs"][0]["write"]["bw"].as_f64().map(|kib| kib / 1_024.0).context("a figure of fio")
}

pub(super) fn tcp_speed() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let piece = vec![7; 1 << 20];
        (0..4_096).try_for_each(|_| stream.write_all(&piece))
    });
    let (mut stream, _) = listener.accept()?;
    let started = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => bytes += n,
        }
    }
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(bytes as f64 / f64::from(1 << 20) / started.elapsed().as_secs_f64())
}

pub(super) fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{model}, {cores} cores, Linux {}", kernel.trim()))
}

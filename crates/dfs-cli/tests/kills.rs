//! Processes killed at seeded moments; `DFS_KILLS=20` runs more of them than the usual eight.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dfs_proto::v1::coordinator_client::CoordinatorClient;
use dfs_proto::wire::WireId as _;
use dfs_proto::{Failure, v1};
use dfs_testkit::process::{Cluster, Settings, wait_until};
use dfs_transport::{Channels, ClientChannel, Security, TcpNetwork};
use dfs_types::{ClientId, Clock as _, ErrorCode, OsRandom, SystemClock};

use crate::support::{binary, cluster, exit_code, noise, noise_file, stderr};

const MIB: usize = 1 << 20;

/// Returns the number of kills per test; `DFS_KILLS` sets it.
fn kills() -> u64 {
    std::env::var("DFS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

/// Returns the moment of a kill, as a part of the time that a whole run takes.
pub(crate) fn moment(seed: u64, whole: Duration) -> Duration {
    let part = u64::from_le_bytes(noise(8, seed)[..8].try_into().unwrap()) % 1_000;
    whole.mul_f64(part as f64 / 1_000.0)
}

/// Asserts that every chunk of a file has at least this many verified replicas.
fn assert_replicas(cluster: &Cluster, path: &str, at_least: u64) {
    // Exits with 1 when a replica cannot be checked, such as one on a killed node.
    let output = cluster.dfs(["explain", "--verify", "--json", path]);
    let explained: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for chunk in explained["chunks"].as_array().unwrap() {
        let good = chunk["replicas"].as_array().unwrap();
        let good = good.iter().filter(|replica| replica["verified"] == true).count() as u64;
        assert!(good >= at_least, "{path} has a chunk with {good} verified replicas: {chunk}");
    }
}

fn timed_put(cluster: &Cluster, local: &str) -> Duration {
    let started = Instant::now();
    cluster.dfs_ok(["put", local, "/timed"]);
    started.elapsed()
}

#[test]
fn put_survives_a_killed_datanode() {
    let mut cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 150 * MIB, 1);
    let whole = timed_put(&cluster, &local);
    for seed in 0..kills() {
        let victim = (seed % 3) as usize;
        let path = format!("/put-{seed}");
        let mut put = cluster.command(["put", &local, &path]).spawn().unwrap();
        let after = moment(seed, whole);
        let started = Instant::now();
        wait_until(after, || started.elapsed() >= after);
        cluster.datanodes[victim].kill();
        assert!(put.wait().unwrap().success(), "seed {seed}: the put failed");
        assert_replicas(&cluster, &path, 2);
        let back = cluster.dfs(["cat", &path]);
        assert!(back.stdout == fs::read(&local).unwrap(), "seed {seed}: bytes differ");
        cluster.start_datanode(victim);
        cluster.wait_for_active(3);
    }
}

#[test]
fn get_survives_a_killed_datanode() {
    let mut cluster = cluster();
    let local = cluster.folder().join("file").display().to_string();
    let back = cluster.folder().join("back");
    noise_file(local.as_ref(), 150 * MIB, 1);
    cluster.dfs_ok(["put", &local, "/file"]);
    let started = Instant::now();
    cluster.dfs_ok(["get".as_ref(), "/file".as_ref(), back.as_os_str()]);
    let whole = started.elapsed();
    for seed in 0..kills() {
        let victim = (seed % 3) as usize;
        let mut get = cluster.command(["get", "/file"]).arg(&back).spawn().unwrap();
        let after = moment(seed, whole);
        let started = Instant::now();
        wait_until(after, || started.elapsed() >= after);
        cluster.datanodes[victim].kill();
        assert!(get.wait().unwrap().success(), "seed {seed}: the get failed");
        assert!(fs::read(&back).unwrap() == fs::read(&local).unwrap(), "seed {seed}: bytes differ");
        cluster.start_datanode(victim);
        cluster.wait_for_active(3);
    }
}

#[test]
fn replicas_of_a_lost_node_are_rereplicated() {
    let mut cluster = Cluster::start(binary(), Settings { datanodes: 4, ..Settings::default() });
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 20 * MIB, 1);
    for n in 0..8 {
        cluster.dfs_ok(["put", &local, &format!("/file-{n}")]);
    }
    cluster.datanodes[0].kill();
    let gone = |cluster: &Cluster| {
        let status = cluster.status();
        status.is_some_and(|status| {
            let nodes = status["nodes"].as_array().unwrap();
            nodes.iter().any(|node| node["state"] == "lost")
        })
    };
    assert!(wait_until(Duration::from_secs(30), || gone(&cluster)), "no node is lost");
    cluster.wait_for_full_replication(Duration::from_mins(1));
    for n in 0..8 {
        assert_replicas(&cluster, &format!("/file-{n}"), 3);
    }
}

/// The target of a build dies while it pulls; the replica is built elsewhere.
#[test]
fn replica_whose_target_is_killed_while_it_is_built_is_built_elsewhere() {
    // Slow enough that the target is killed halfway.
    let datanode = "move_bytes_per_second: 2000000\n".to_owned();
    let settings = Settings { datanodes: 5, datanode, ..Settings::default() };
    let mut cluster = Cluster::start(binary(), settings);
    let local = cluster.folder().join("file").display().to_string();
    noise_file(local.as_ref(), 8 * MIB, 1);
    for path in ["/a", "/b"] {
        cluster.dfs_ok(["put", &local, path]);
    }
    let explained = cluster.dfs_ok(["explain", "--json", "/a"]);
    let explained: serde_json::Value = serde_json::from_str(&explained).unwrap();
    let holder = explained["chunks"][0]["replicas"][0]["address"].as_str().unwrap();
    let lost = cluster.datanodes.iter().position(|node| node.address() == holder).unwrap();
    let metric = |cluster: &Cluster, node: usize, name: &str| {
        cluster.datanodes[node].metric(&format!("dfs_datanode_{name}_total"), "")
    };
    let others: Vec<usize> = (0..5).filter(|node| *node != lost).collect();
    let received = |cluster: &Cluster, node| metric(cluster, node, "received_bytes");
    let before: Vec<f64> = others.iter().map(|node| received(&cluster, *node)).collect();
    cluster.datanodes[lost].kill();
    let mut target = None;
    let is_building = wait_until(Duration::from_mins(1), || {
        let mut grown = others.iter().zip(&before);
        target = grown.find(|(node, before)| received(&cluster, **node) > **before).map(|it| *it.0);
        target.is_some()
    });
    let target = target.filter(|_| is_building).expect("a replica is being built");
    assert!(metric(&cluster, target, "built") < 1.0, "it is built already");
    cluster.datanodes[target].kill();
    cluster.wait_for_full_replication(Duration::from_mins(2));
    for path in ["/a", "/b"] {
        assert_replicas(&cluster, path, 3);
        assert!(cluster.dfs(["cat", path]).stdout == fs::read(&local).unwrap(), "{path} differs");
    }
}

#[test]
fn acknowledged_files_survive_a_killed_coordinator() {
    // A kill hits one of them, wherever it is; the others are there before it or after it.
    const FILES: u64 = 40;
    let mut cluster = cluster();
    let bytes: Vec<_> = (0..FILES).map(|n| noise(1_000 + n as usize * 37, n)).collect();
    for (n, bytes) in bytes.iter().enumerate() {
        fs::write(cluster.folder().join(format!("{n}")), bytes).unwrap();
    }
    let folder = cluster.folder().to_owned();
    let started = Instant::now();
    cluster.dfs_ok(["mkdir", "/timed"]);
    for n in 0..FILES / 4 {
        cluster.dfs_ok(["put".as_ref(), folder.join(n.to_string()).as_os_str(), "/timed".as_ref()]);
    }
    let whole = started.elapsed() * 4;
    for seed in 0..kills() {
        let top = format!("/round-{seed}");
        cluster.dfs_ok(["mkdir", &top]);
        let after = moment(seed, whole);
        let commands: Vec<_> = (0..FILES)
            .map(|n| {
                let mut command = cluster.command(["put"]);
                command.arg(folder.join(n.to_string())).arg(&top);
                command
            })
            .collect();
        let puts = std::thread::spawn(move || {
            commands.into_iter().map(|mut put| put.output().unwrap()).collect::<Vec<_>>()
        });
        let started = Instant::now();
        wait_until(after, || started.elapsed() >= after || puts.is_finished());
        cluster.coordinator.kill();
        cluster.start_coordinator();
        let outputs = puts.join().unwrap();
        cluster.wait_for_active(3);
        let back = folder.join(format!("back-{seed}"));
        cluster.dfs_ok(["get".as_ref(), "-r".as_ref(), top.as_ref(), back.as_os_str()]);
        for (n, output) in outputs.iter().enumerate() {
            assert_eq!(exit_code(output), 0, "seed {seed}, {n}: {}", stderr(output));
            let back = fs::read(back.join(n.to_string())).unwrap();
            assert!(back == bytes[n], "seed {seed}: {top}/{n} differs");
        }
    }
}

/// Makes the calls of one client, repeating each under its slot until it gets a reply, and once
/// more, at any coordinator. Returns the names that must exist.
pub(crate) async fn repeats(urls: Vec<String>, client: u8, stop: Arc<AtomicBool>) -> Vec<String> {
    // Client ids start with their creation time: old ones are refused.
    let id = ClientId::new(SystemClock.now(), &OsRandom).to_wire();
    let slot = |sequence| v1::Slot { client_id: id.clone(), slot: 0, sequence };
    let mut sequence = 0;
    let mut number = 0;
    let mut there = Vec::new();
    // At least one each, even on a slow machine.
    while !stop.load(Ordering::Relaxed) || there.is_empty() {
        let (made, moved) = (format!("/{client}-{number}"), format!("/{client}-{number}-moved"));
        sequence += 1;
        let make = v1::MakeDirectoryRequest {
            target: Some(v1::Target::of_path(made.clone())),
            attributes: Some(v1::Attributes { mode: 0o755, ..Default::default() }),
            slot: Some(slot(sequence)),
            ..Default::default()
        };
        answered_twice(&urls, |mut c| {
            let make = make.clone();
            async move { c.make_directory(make).await }
        })
        .await;
        sequence += 1;
        let rename = v1::RenameRequest {
            from: Some(v1::Target::of_path(made)),
            to: Some(v1::Target::of_path(moved.clone())),
            slot: Some(slot(sequence)),
            ..Default::default()
        };
        answered_twice(&urls, |mut c| {
            let rename = rename.clone();
            async move { c.rename(rename).await }
        })
        .await;
        if number % 2 == 0 {
            sequence += 1;
            let delete = v1::DeleteRequest {
                target: Some(v1::Target::of_path(moved)),
                slot: Some(slot(sequence)),
                ..Default::default()
            };
            answered_twice(&urls, |mut c| {
                let delete = delete.clone();
                async move { c.delete(delete).await }
            })
            .await;
        } else {
            there.push(moved.trim_start_matches('/').to_owned());
        }
        number += 1;
    }
    there
}

/// Repeats a call until a coordinator replies, which must be a success, then calls once more: the
/// reply must be the same.
async fn answered_twice<T, R>(urls: &[String], call: impl Fn(CoordinatorClient<ClientChannel>) -> R)
where
    T: PartialEq + std::fmt::Debug,
    R: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut urls = urls.iter().cycle();
    let mut answer = async || loop {
        let channels = Channels::new(Arc::new(TcpNetwork), Security::default());
        let url = urls.next().expect("a coordinator exists");
        match call(CoordinatorClient::new(channels.control(url).unwrap())).await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => {
                let code = Failure::from_status(&status).code;
                assert!(code.is_retryable() || code == ErrorCode::OutcomeUnknown, "{status:?}");
                assert!(Instant::now() < deadline, "{status:?}");
                tokio::task::yield_now().await;
            }
        }
    };
    let first = answer().await;
    assert_eq!(first, answer().await, "a repeat got another reply");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_take_effect_once_across_a_coordinator_kill() {
    let mut cluster = cluster();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (1..=8)
        .map(|client| tokio::spawn(repeats(cluster.coordinator_urls(), client, stop.clone())))
        .collect();
    for seed in 0..kills() {
        let after = moment(seed, Duration::from_millis(400));
        let started = Instant::now();
        wait_until(after, || started.elapsed() >= after);
        cluster.coordinator.kill();
        cluster.start_coordinator();
    }
    stop.store(true, Ordering::Relaxed);
    let mut wanted = Vec::new();
    for client in clients {
        wanted.extend(client.await.unwrap());
    }
    wanted.sort();
    let listed = cluster.dfs_ok(["ls", "/"]);
    assert!(!wanted.is_empty());
    assert!(listed.lines().eq(wanted.iter().map(String::as_str)), "want {wanted:?}, got {listed}");
}

//! Replication is changed, by default and per path, while files are written and read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_client::{Client, PutOptions, PutSource};
use dfs_testkit::process::{Cluster, Settings};
use dfs_types::DfsPath;
use tokio::time::{Instant, sleep};

use crate::semantics::{client, put, read};
use crate::support::{binary, exit_code, noise, stderr};

const DEADLINE: Duration = Duration::from_secs(40);

/// Files by path, with the seed of their content.
type Files = Arc<Mutex<BTreeMap<String, u64>>>;

/// Size of the file of a seed: of one chunk, or of several.
fn size(seed: u64) -> usize {
    if seed.is_multiple_of(7) { 200_000 } else { 3_000 }
}

fn path(text: &str) -> DfsPath {
    DfsPath::new(text.as_bytes().to_vec()).unwrap()
}

async fn write(client: &Client, files: &Files, at: &str, seed: u64) {
    let mut options = PutOptions::default();
    options.chunk_size = Some(64 << 10);
    let source = PutSource::bytes(noise(size(seed), seed));
    client.put(&path(at), source, options).await.unwrap_or_else(|error| panic!("{at}: {error}"));
    files.lock().unwrap().insert(at.to_owned(), seed);
}

async fn check(client: &Client, at: &str, seed: u64) {
    let bytes = read(client, at).await.unwrap_or_else(|error| panic!("{at}: {error}"));
    assert!(bytes == noise(size(seed), seed), "{at} differs");
}

/// Writes new files and reads old ones until it is stopped. Returns how many.
async fn load(client: Client, files: Files, stop: Arc<AtomicBool>) -> u64 {
    let mut seed: u64 = 1_000;
    while !stop.load(Ordering::Relaxed) {
        seed += 1;
        let directory = if seed.is_multiple_of(2) { "/all" } else { "/two" };
        write(&client, &files, &format!("{directory}/load-{seed}"), seed).await;
        let (at, old) = {
            let files = files.lock().unwrap();
            let nth = (seed.wrapping_mul(0x9e37_79b9) % files.len() as u64) as usize;
            files.iter().nth(nth).map(|(at, seed)| (at.clone(), *seed)).unwrap()
        };
        check(&client, &at, old).await;
        sleep(Duration::from_millis(20)).await;
    }
    seed - 1_000
}

/// Waits until every chunk has exactly as many replicas as `wanted` says for its path, all of them
/// good, and the disks hold nothing else.
async fn until_exact(
    cluster: &Cluster,
    client: &Client,
    files: &Files,
    wanted: impl Fn(&str) -> usize,
) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (mut wrong, mut replicas) = (None, 0);
        let paths: Vec<String> = files.lock().unwrap().keys().cloned().collect();
        for at in &paths {
            let found = client.explain(&path(at), false).await.unwrap();
            let exact = |chunk: &dfs_client::ExplainedChunk| {
                chunk.wanted as usize == wanted(at) && chunk.replicas.len() == wanted(at)
            };
            if !found.chunks.iter().all(exact) || !found.problems.is_empty() {
                wrong = Some(format!("{at}: {found:#?}"));
                break;
            }
            replicas += found.chunks.len() * wanted(at);
        }
        let status = cluster.status().unwrap();
        let disks = status["nodes"].as_array().unwrap().iter().flat_map(|node| {
            node["disks"].as_array().unwrap().iter().map(|disk| disk["chunks"].as_u64().unwrap())
        });
        let held: u64 = disks.sum();
        if wrong.is_none() && held as usize == replicas {
            return;
        }
        let workers = &status["workers"];
        assert!(
            Instant::now() < deadline,
            "the disks hold {held} replicas, {replicas} are wanted; {wrong:?} {workers:#}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// S33: three to two to three replicas, and a directory of its own.
#[tokio::test(flavor = "multi_thread")]
async fn s33_changed_replication_reaches_every_file_while_files_are_written_and_read() {
    let settings = Settings { datanodes: 4, ..Settings::default() };
    let cluster = Cluster::start(binary(), settings);
    let client = client(&cluster);
    cluster.wait_for_active(4);
    cluster.dfs_ok(["mkdir", "/all", "/two", "/two/below"]);
    let files = Files::default();
    for seed in 0..40 {
        let directory = ["/all", "/two", "/two/below"][seed as usize % 3];
        write(&client, &files, &format!("{directory}/file-{seed}"), seed).await;
    }
    // Unknown to the load, which would miss it when it is moved.
    let moved = Files::default();
    write(&client, &moved, "/two/below/to-move", 777).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(client.clone(), files.clone(), stop.clone()));

    let refused = cluster.dfs(["set-replication", "/two", "2"]);
    assert_eq!(exit_code(&refused), 2, "nobody can confirm");
    assert!(stderr(&refused).contains("to free"), "the plan: {}", stderr(&refused));
    cluster.dfs_ok(["set-replication", "--default", "2", "--yes"]);
    let settled = async |of: fn(&str) -> usize| {
        // Of the files that exist now; the load continues.
        let existing: Files = Arc::new(Mutex::new(files.lock().unwrap().clone()));
        let deadline = Instant::now() + DEADLINE;
        loop {
            let paths: Vec<String> = existing.lock().unwrap().keys().cloned().collect();
            let mut is_exact = true;
            for at in paths {
                let found = client.explain(&path(&at), false).await.unwrap();
                is_exact &= found.chunks.iter().all(|chunk| chunk.replicas.len() == of(&at));
            }
            if is_exact {
                return;
            }
            assert!(Instant::now() < deadline, "{:#}", cluster.status().unwrap()["workers"]);
            sleep(Duration::from_millis(100)).await;
        }
    };
    settled(|_| 2).await;
    let plan = cluster.dfs_ok(["set-replication", "/two", "4", "--yes", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert!(plan["plan"]["bytes_to_write"].as_u64() > Some(0), "{plan}");
    // A file that is moved keeps its number, wherever the walk is.
    cluster.dfs_ok(["mv", "/two/below/to-move", "/all/moved"]);
    cluster.dfs_ok(["set-replication", "--default", "3", "--yes"]);
    stop.store(true, Ordering::Relaxed);
    let written = load.await.unwrap();
    assert!(written > 20, "{written} files were written meanwhile");
    files.lock().unwrap().insert("/all/moved".to_owned(), 777);

    let wanted = |at: &str| if at.starts_with("/two/") || at == "/all/moved" { 4 } else { 3 };
    until_exact(&cluster, &client, &files, wanted).await;
    let all = files.lock().unwrap().clone();
    for (at, seed) in &all {
        check(&client, at, *seed).await;
    }
    assert!(cluster.dfs_ok(["stat", "/two"]).contains("replicas of new files: 4 (set explicitly)"));
    cluster.dfs_ok(["ln", "-s", "/two", "/link"]);
    let mut reset = vec!["set-replication", "/link", "--reset", "--yes", "--wait", "--for", "40s"];
    let through_link = cluster.dfs(&reset);
    assert_eq!(exit_code(&through_link), 0, "{}", stderr(&through_link));
    let said = stderr(&through_link);
    assert!(said.contains("/link is a symlink: its target, /two, is changed"), "{said}");
    assert!(said.contains("to free") && said.contains("has its replicas"), "{said}");
    let wanted = |at: &str| if at == "/all/moved" { 4 } else { 3 };
    let paths: Vec<String> = files.lock().unwrap().keys().cloned().collect();
    for at in &paths {
        let found = client.file_replication(path(at)).await.unwrap();
        assert_eq!((found.wanted as usize, found.unsettled), (wanted(at), 0), "{at}");
    }
    // Again changes nothing, and is not waited for.
    reset.push("--json");
    let again: serde_json::Value = serde_json::from_str(&cluster.dfs_ok(&reset)).unwrap();
    assert_eq!((&again["is_settled"], &again["plan"]["files"]), (&true.into(), &0.into()));
    until_exact(&cluster, &client, &files, wanted).await;
    for (at, seed) in &all {
        check(&client, at, *seed).await;
    }
    put(&client, "/two/last", noise(10, 1)).await.unwrap();
    let workers = cluster.dfs_ok(["worker", "list"]);
    assert!(workers.contains("policy") && workers.contains("trim"), "{workers}");
}

/// More replicas than datanodes.
#[tokio::test(flavor = "multi_thread")]
async fn more_replicas_than_datanodes_are_accepted_with_a_warning_and_built_once_there_are_enough()
{
    let mut cluster = Cluster::start(binary(), Settings::default());
    let client = client(&cluster);
    put(&client, "/file", noise(1_000, 1)).await.unwrap();
    let set = cluster.dfs(["set-replication", "/file", "4", "--yes", "--wait", "--for", "5s"]);
    assert_eq!(exit_code(&set), 5, "{}", stderr(&set));
    assert!(
        stderr(&set).contains("/file: 1 chunk without the replicas wanted"),
        "{}",
        stderr(&set)
    );
    assert!(stderr(&set).contains("stay under-replicated until there are 4"), "{}", stderr(&set));
    let deadline = Instant::now() + DEADLINE;
    let replicas = async || client.explain(&path("/file"), false).await.unwrap();
    while !replicas().await.problems.iter().any(|why| why.contains("3 good replicas of 4 wanted")) {
        assert!(Instant::now() < deadline, "{:?}", replicas().await);
        sleep(Duration::from_millis(50)).await;
    }
    cluster.add_datanode();
    cluster.dfs_ok(["set-replication", "/file", "4", "--yes", "--wait", "--for", "40s"]);
    assert_eq!(replicas().await.chunks[0].replicas.len(), 4);
}

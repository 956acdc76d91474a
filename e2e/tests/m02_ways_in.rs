//! A file round-trips by every kind of access.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dfs_e2e::{ClientPod, Cluster, PortForward, Program, case};
use serde_json::{Value, json};

const LENGTH: u64 = 200 << 20;
/// Time limit of a command that transfers the file.
const LIMIT: Duration = Duration::from_mins(5);

fn spec() -> Value {
    json!({
        "replicationFactor": 2,
        "datanodes": { "replicas": 3, "storage": { "size": "2Gi" } },
    })
}

/// Puts a file from this machine and gets it back, with the connection options `way`.
async fn round_trip(cluster: &Cluster, folder: &Path, name: &str, way: &[&str]) -> Result<String> {
    let tool = |verb: &str, path: &str, seed: &str| {
        let length = LENGTH.to_string();
        Program::new(env!("CARGO_BIN_EXE_dfs-e2e-client")).args(&[verb, path, &length, seed])
    };
    let local = |suffix: &str| -> Result<String> {
        let path = folder.join(format!("{name}-{suffix}"));
        Ok(path.to_str().context("the directory has a plain name")?.to_owned())
    };
    let (there, back, remote) = (local("there")?, local("back")?, format!("/{name}"));
    let seed = name.len().to_string();
    tool("make", &there, &seed).within(LIMIT).run().await?;
    let put = [way, &["put", &there, &remote]].concat();
    let put = cluster.env.dfs(&put)?.within(LIMIT).end().await?;
    ensure!(put.is_success, "put: {}", put.stderr);
    let get = [way, &["get", &remote, &back]].concat();
    let get = cluster.env.dfs(&get)?.within(LIMIT).end().await?;
    ensure!(get.is_success, "get: {}", get.stderr);
    tool("check", &back, &seed).within(LIMIT).run().await?;
    for path in [there, back] {
        std::fs::remove_file(path)?;
    }
    Ok(put.stderr + &get.stderr)
}

#[tokio::test]
async fn m02_file_round_trips_from_a_pod_and_from_a_laptop() -> Result<()> {
    case("m02", async |case| {
        case.operator().await?;
        let cluster = case.cluster("dfs");
        cluster.apply(spec()).await?;
        cluster.wait_ready().await?;

        let pod = ClientPod::start(&cluster).await?;
        pod.make_file("/tmp/there", LENGTH, 1).await?;
        pod.dfs(&["put", "/tmp/there", "/from-a-pod"]).await?;
        pod.dfs(&["get", "/from-a-pod", "/tmp/back"]).await?;
        pod.check_file("/tmp/back", LENGTH, 1).await?;

        let folder = tempfile::tempdir()?;
        let forward = PortForward::start(&cluster).await?;
        let url = forward.url();
        let way = ["--coordinator", &url];
        let said = round_trip(&cluster, folder.path(), "port-forward", &way).await?;
        ensure!(said.contains("relayed by the coordinator"), "no warning: {said:?}");
        drop(forward);

        let name = format!("{}/{}", cluster.namespace, cluster.name);
        let way = ["--kube", &name, "--context", case.env.context()];
        let said = round_trip(&cluster, folder.path(), "kube", &way).await?;
        ensure!(!said.contains("relayed by"), "not straight to the pods: {said:?}");
        let status = [&way[..], &["--json", "status"]].concat();
        let status: Value = serde_json::from_str(&case.env.dfs(&status)?.run().await?)?;
        ensure!(status["nodes"].as_array().map(Vec::len) == Some(3), "{status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn m02_connection_errors_are_reported() -> Result<()> {
    case("m02-wrong", async |case| {
        let context = case.env.context();
        let nothing = format!("{}/nothing", case.namespace);
        let no_context = ["--kube", &nothing, "--context", "no-such-context", "ls", "/"];
        let no_cluster = ["--kube", &nothing, "--context", context, "ls", "/"];
        for (arguments, said) in
            [(no_context, "no-such-context"), (no_cluster, "no DfsCluster nothing")]
        {
            let ended = case.env.dfs(&arguments)?.end().await?;
            ensure!(!ended.is_success, "{arguments:?} did not fail");
            ensure!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
        }
        Ok(())
    })
    .await
}

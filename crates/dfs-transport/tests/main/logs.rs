//! Log lines about a call carry its request id, in whichever task.

use std::time::Duration;

use dfs_proto::v1::ClusterStatusRequest;
use dfs_proto::v1::admin_server::AdminServer;
use dfs_runtime::LogCapture;
use dfs_transport::{MemoryNetwork, in_request, spawn_in_request, with_request_id};
use dfs_types::RequestId;

use crate::service::{Running, Service, client, replication};

const ID: RequestId = RequestId(0xabc);

const FILTER: &str = "warn,dfs_transport=debug,main=debug";

#[tokio::test(start_paused = true)]
async fn each_reply_is_logged_with_call_code_time_and_id() {
    let lines = LogCapture::start(FILTER);
    let network = MemoryNetwork::default();
    let service = Service::default();
    let server = AdminServer::new(service.clone());
    let _running = Running::start(&network, "a:1", server, Duration::ZERO).await;
    let mut admin = client(&network, "a:1");
    with_request_id(ID, admin.set_replication(replication(3))).await.unwrap();
    with_request_id(ID, admin.set_replication(replication(0))).await.unwrap_err();
    let mut waiting = admin.clone();
    let call = waiting.cluster_status(ClusterStatusRequest::default());
    let later = async {
        service.begun.subscribe().wait_for(|begun| *begun == 1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        service.may_end.send_replace(true);
    };
    futures_util::future::join(with_request_id(ID, call), later).await.0.unwrap();

    let mut answered = lines.with("answered");
    answered.retain(|line| line.contains(&ID.to_string()));
    let expected = [
        ("SetReplication", "code=Ok elapsed_ms=0"),
        ("SetReplication", "code=InvalidArgument elapsed_ms=0"),
        ("ClusterStatus", "code=Ok elapsed_ms=25"),
    ];
    assert_eq!(answered.len(), expected.len(), "{answered:?}");
    for (line, (method, end)) in answered.iter().zip(expected) {
        let span = format!("request{{id={ID} method=\"/dfs.v1.Admin/{method}\"}}");
        assert!(line.contains(&span) && line.contains("DEBUG"), "{line}");
        assert!(line.contains(&format!("call=\"/dfs.v1.Admin/{method}\" {end}")), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn spawned_task_keeps_the_request_id_and_logs_it() {
    let lines = LogCapture::start(FILTER);
    let id = RequestId(0xdef);
    let seen = in_request(id, async {
        let part = spawn_in_request(async {
            tracing::warn!("in a part");
            dfs_transport::current_request_id()
        });
        part.await.unwrap()
    })
    .await;
    assert_eq!(seen, Some(id));
    let logged = lines.with("in a part");
    assert!(logged[0].contains(&format!("request{{id={id}}}")), "{logged:?}");
    // Outside a request it is an ordinary task.
    assert_eq!(
        spawn_in_request(async { dfs_transport::current_request_id() }).await.unwrap(),
        None
    );
}

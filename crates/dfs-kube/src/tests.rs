//! Tests against an API server with canned replies.

use std::io;
use std::sync::{Arc, Mutex};

use dfs_transport::Network as _;
use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::{Cluster, Error, Target};

/// Contents of the API server, and the requests it received.
#[derive(Clone, Default)]
struct Server {
    clusters: Vec<&'static str>,
    pods: Arc<Mutex<Vec<Value>>>,
    forbids: Option<&'static str>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn answer(&self, path: &str, query: &str) -> (StatusCode, Value) {
        self.asked.lock().unwrap().push(path.to_owned());
        if self.forbids.is_some_and(|forbidden| path.contains(forbidden)) {
            let message = format!("you cannot use {path}");
            return failure(StatusCode::FORBIDDEN, "Forbidden", &message);
        }
        match path {
            "/apis/dfs.io/v1alpha1/namespaces/files/dfsclusters" => {
                let named = |name| json!({ "metadata": { "name": name, "namespace": "files" } });
                let items: Vec<Value> = self.clusters.iter().map(named).collect();
                (StatusCode::OK, list("PartialObjectMetadataList", "meta.k8s.io/v1", &items))
            }
            "/api/v1/namespaces/files/pods" => {
                assert!(query.contains("instance%3Ddemo"), "{query}");
                (StatusCode::OK, list("PodList", "v1", &self.pods.lock().unwrap()))
            }
            path => failure(StatusCode::NOT_FOUND, "NotFound", &format!("no {path}")),
        }
    }

    async fn find(&self, name: Option<&str>) -> Result<Cluster, Error> {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let uri = request.uri();
            let (status, body) = server.answer(uri.path(), uri.query().unwrap_or_default());
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            let answer = Response::builder().status(status).body(body).unwrap();
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let client = Client::new(service, "files");
        let name = name.map(str::to_owned);
        Cluster::find_with(client, "https://server".to_owned(), "files".to_owned(), name).await
    }

    fn asked(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }
}

fn list(kind: &str, version: &str, items: &[Value]) -> Value {
    json!({ "kind": kind, "apiVersion": version, "metadata": {}, "items": items })
}

fn failure(code: StatusCode, reason: &str, message: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    (code, status)
}

fn pod(name: &str, component: &str, ip: &str, phase: &str) -> Value {
    let is_ready = if phase == "Running" { "True" } else { "False" };
    let port = if component == "datanode" { 7080 } else { 7070 };
    json!({
        "metadata": {
            "name": name, "namespace": "files",
            "labels": { "app.kubernetes.io/component": component },
        },
        "spec": { "containers": [{
            "name": "dfs",
            "ports": [
                { "name": "http", "containerPort": port + 1 },
                { "name": "grpc", "containerPort": port },
            ],
        }]},
        "status": {
            "phase": phase, "podIP": ip,
            "conditions": [{ "type": "Ready", "status": is_ready }],
        },
    })
}

fn server() -> Server {
    let pods = vec![
        pod("demo-coordinator-a", "coordinator", "10.0.0.1", "Running"),
        pod("demo-coordinator-b", "coordinator", "10.0.0.2", "Pending"),
        pod("demo-datanode-0", "datanode", "10.0.0.3", "Running"),
        pod("demo-datanode-1", "datanode", "10.0.0.4", "Pending"),
    ];
    let pods = Arc::new(Mutex::new(pods));
    Server { clusters: vec!["demo"], pods, ..Server::default() }
}

async fn refusal(server: &Server, name: Option<&str>) -> String {
    server.find(name).await.expect_err("no cluster found").to_string()
}

#[test]
fn targets_are_parsed() {
    let target = |text: &str| text.parse::<Target>().map_err(|error| error.to_string());
    let named = |namespace: Option<&str>, name: &str| Target {
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
    };
    assert_eq!(target("files/demo"), Ok(named(Some("files"), "demo")));
    assert_eq!(target("demo"), Ok(named(None, "demo")));
    for wrong in ["", "/", "/demo", "files/", "a/b/c", "Demo", "files/de mo"] {
        assert!(target(wrong).is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn only_cluster_is_found_with_its_ready_coordinators() {
    let server = server();
    for name in [None, Some("demo")] {
        let cluster = server.find(name).await.unwrap();
        assert_eq!((cluster.namespace(), cluster.name()), ("files", "demo"));
        let found = cluster.network().resolve(&cluster.coordinators()).await.unwrap();
        assert_eq!(found, ["demo-coordinator-a:7070"]);
    }
}

#[tokio::test]
async fn missing_or_ambiguous_cluster_is_reported() {
    let none = Server { clusters: Vec::new(), ..server() };
    assert!(refusal(&none, None).await.contains("there are none"));
    let several = Server { clusters: vec!["demo", "other"], ..server() };
    assert!(refusal(&several, None).await.contains("there are: demo, other"));
    let missing = refusal(&several, Some("third")).await;
    assert!(missing.contains("no DfsCluster third in namespace files"), "{missing}");
    several.find(Some("demo")).await.unwrap();
}

#[tokio::test]
async fn denied_or_missing_resources_are_reported() {
    for forbidden in ["dfsclusters", "pods"] {
        let server = Server { forbids: Some(forbidden), ..server() };
        let said = refusal(&server, None).await;
        assert!(said.contains("you cannot use"), "{said}");
        assert!(said.contains("pods/portforward"), "{said}");
    }
    let server = server();
    server.pods.lock().unwrap().remove(0);
    let said = refusal(&server, None).await;
    assert!(said.contains("pod demo-coordinator-b is Pending, not ready"), "{said}");
}

#[tokio::test]
async fn address_refers_to_a_running_pod_of_the_cluster() {
    let server = server();
    let network = server.find(None).await.unwrap().network();
    let forwarded = |pod: &str| server.asked(&format!("/pods/{pod}/portforward"));
    for address in
        ["demo-datanode-0.demo-datanodes.files.svc:7080", "10.0.0.3:7080", "demo-datanode-0:7080"]
    {
        let before = forwarded("demo-datanode-0");
        // Forwarding fails here; only the request matters.
        assert!(network.connect(address).await.is_err());
        assert_eq!(forwarded("demo-datanode-0"), before + 1, "{address}");
    }
    let elsewhere = ["demo-datanode-0.demo-datanodes.other.svc:7080", "10.0.0.9:7080"];
    for address in elsewhere {
        let error = network.connect(address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{address}");
    }
    let error = network.connect("10.0.0.4:7080").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(error.to_string(), "pod demo-datanode-1 is Pending, not ready");
}

#[tokio::test]
async fn denied_port_forward_is_not_retried() {
    let server = Server { forbids: Some("portforward"), ..server() };
    let network = server.find(None).await.unwrap().network();
    let error = network.connect("10.0.0.3:7080").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("get and create pods/portforward"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn pods_are_listed_again_when_they_may_have_changed() {
    let server = server();
    let network = server.find(None).await.unwrap().network();
    assert_eq!(server.asked("/pods"), 1);
    server.pods.lock().unwrap().push(pod("demo-datanode-2", "datanode", "10.0.0.5", "Running"));
    // Just listed: wrong addresses cause no additional requests.
    assert!(network.connect("10.0.0.5:7080").await.is_err());
    assert_eq!(server.asked("/pods/demo-datanode-2"), 0);
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    assert!(network.connect("10.0.0.5:7080").await.is_err());
    assert_eq!(server.asked("/pods/demo-datanode-2/portforward"), 1);
}

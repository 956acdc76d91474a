//! C66: allowed traffic.

use serde_json::{Value, json};

use super::fixtures::{FULL, MINIMAL, cluster, find, inputs, render};
use crate::build::{Inputs, objects};
use crate::kind::{Kind, Object};

fn policy<'a>(objects: &'a [Object], component: &str) -> &'a Value {
    &find(objects, Kind::NetworkPolicy, &format!("demo-{component}"))["spec"]
}

/// Returns the peers of the rule for a port.
fn peers<'a>(rules: &'a Value, side: &str, port: i64) -> Vec<&'a Value> {
    let rules = rules.as_array().unwrap().iter();
    let of_port = rules
        .filter(|rule| rule["ports"].as_array().unwrap().iter().any(|open| open["port"] == port));
    of_port.flat_map(|rule| rule[side].as_array().into_iter().flatten()).collect()
}

fn pods(component: &str) -> Value {
    json!({ "podSelector": { "matchLabels": {
        "app.kubernetes.io/name": "dfs",
        "app.kubernetes.io/instance": "demo",
        "app.kubernetes.io/component": component,
    } } })
}

fn operator(namespace: &Value) -> Value {
    json!({
        "namespaceSelector": namespace,
        "podSelector": { "matchLabels": { "app.kubernetes.io/name": "dfs-operator" } },
    })
}

#[test]
fn c66_only_listed_ingress_is_allowed() {
    let objects = render(&cluster(MINIMAL));
    let everyone_here = json!({ "podSelector": {} });
    let system = json!({ "matchLabels": { "kubernetes.io/metadata.name": "dfs-system" } });
    let coordinator = policy(&objects, "coordinator");
    assert_eq!(
        peers(&coordinator["ingress"], "from", 7070),
        [&everyone_here, &pods("datanode"), &pods("coordinator"), &operator(&system)]
    );
    let datanode = policy(&objects, "datanode");
    assert_eq!(
        peers(&datanode["ingress"], "from", 7080),
        [&everyone_here, &pods("datanode"), &pods("coordinator")]
    );
    for (policy, port) in [(coordinator, 7071), (datanode, 7081)] {
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["ingress"].as_array().unwrap().len(), 1);
        assert_eq!(peers(&policy["ingress"], "from", port), [&Value::Null; 0]);
    }
}

#[test]
fn c66_only_listed_egress_is_allowed() {
    let objects = render(&cluster(MINIMAL));
    for component in ["coordinator", "datanode"] {
        let egress = &policy(&objects, component)["egress"];
        assert_eq!(peers(egress, "to", 7080), [&pods("datanode")]);
        assert_eq!(peers(egress, "to", 7070), [&pods("coordinator")]);
        let open: Vec<&Value> =
            egress.as_array().unwrap().iter().filter(|r| r.get("to").is_none()).collect();
        let dns = json!([{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }]);
        assert_eq!(open.len(), 1, "only DNS may go anywhere");
        assert_eq!(open[0]["ports"], dns);
    }
    // The ports of etcd are known.
    let objects = render(&cluster(FULL));
    let egress = policy(&objects, "coordinator")["egress"].as_array().unwrap();
    let etcd = json!([{ "protocol": "TCP", "port": 2379 }, { "protocol": "TCP", "port": 2390 }]);
    assert!(egress.iter().any(|rule| rule["ports"] == etcd && rule.get("to").is_none()));
    let egress = policy(&objects, "datanode")["egress"].as_array().unwrap();
    assert!(egress.iter().all(|rule| rule["ports"] != etcd));
}

#[test]
fn c66_listed_clients_replace_the_namespace() {
    let objects = render(&cluster(FULL));
    let listed = json!({ "podSelector": { "matchLabels": { "dfs-client": "true" } } });
    for (component, port) in [("coordinator", 7070), ("datanode", 7080)] {
        let from = peers(&policy(&objects, component)["ingress"], "from", port);
        assert_eq!(from[0], &listed);
        assert!(!from.contains(&&json!({ "podSelector": {} })));
    }
}

#[test]
fn metrics_are_open_when_monitored() {
    let objects = render(&cluster(FULL));
    for (component, port) in [("coordinator", 7071), ("datanode", 7081)] {
        let from = peers(&policy(&objects, component)["ingress"], "from", port);
        assert_eq!(from, [&json!({ "namespaceSelector": {} })]);
    }
}

#[test]
fn operator_outside_of_kubernetes_has_no_namespace_rule() {
    let minimal = cluster(MINIMAL);
    let objects = objects(&Inputs { operator_namespace: None, ..inputs(&minimal) });
    let from = peers(&policy(&objects, "coordinator")["ingress"], "from", 7070);
    assert!(from.contains(&&operator(&json!({}))));
}

#[test]
fn network_policies_can_be_disabled() {
    let mut cluster = cluster(MINIMAL);
    cluster.spec.security.network_policy.enabled = false;
    assert!(render(&cluster).iter().all(|object| object.kind != Kind::NetworkPolicy));
}

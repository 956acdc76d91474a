//! NetworkPolicies of the pods: all traffic not listed here is denied.
//!
//! Probes come from the node itself, which every network allows; so does `kubectl port-forward`.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::Plan;
use super::{Component, labels};

const DNS_PORT: i32 = 53;
/// Label of the operator's pods.
const OPERATOR: (&str, &str) = ("app.kubernetes.io/name", "dfs-operator");
/// Label of every namespace with its name.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// Ingress: clients, datanodes, coordinators, the operator. Egress: datanodes, coordinators, etcd,
/// DNS.
pub(super) fn coordinator(plan: &Plan<'_>) -> NetworkPolicy {
    let (own, datanode) = (Component::Coordinator, Component::Datanode);
    let mut from = clients(plan);
    from.extend([pods(plan, datanode), pods(plan, own), operator(plan)]);
    let mut out = vec![
        to(Some(pods(plan, datanode)), vec![tcp(datanode.grpc_port())]),
        to(Some(pods(plan, own)), vec![tcp(own.grpc_port())]),
    ];
    let etcd = etcd_ports(plan);
    if !etcd.is_empty() {
        // Members are known by name, which a policy cannot express.
        out.push(to(None, etcd.into_iter().map(tcp).collect()));
    }
    build(plan, own, from, out)
}

/// Ingress: clients, datanodes, coordinators. Egress: datanodes, coordinators, DNS.
pub(super) fn datanode(plan: &Plan<'_>) -> NetworkPolicy {
    let (own, coordinator) = (Component::Datanode, Component::Coordinator);
    let mut from = clients(plan);
    from.extend([pods(plan, own), pods(plan, coordinator)]);
    let out = vec![
        to(Some(pods(plan, own)), vec![tcp(own.grpc_port())]),
        to(Some(pods(plan, coordinator)), vec![tcp(coordinator.grpc_port())]),
    ];
    build(plan, own, from, out)
}

fn build(
    plan: &Plan<'_>,
    component: Component,
    from: Vec<NetworkPolicyPeer>,
    mut out: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicy {
    let mut into = vec![NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(vec![tcp(component.grpc_port())]),
    }];
    if plan.spec.monitoring.service_monitor.enabled {
        // Where Prometheus runs is unknown; metrics are not secret within a cluster.
        into.push(NetworkPolicyIngressRule {
            from: Some(vec![NetworkPolicyPeer {
                namespace_selector: Some(LabelSelector::default()),
                ..NetworkPolicyPeer::default()
            }]),
            ports: Some(vec![tcp(component.http_port())]),
        });
    }
    out.push(to(None, vec![port("UDP", DNS_PORT), tcp(DNS_PORT)]));
    NetworkPolicy {
        metadata: plan.metadata(plan.names.of_component(component), component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels::selector(plan.pods(component))),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(into),
            egress: Some(out),
        }),
    }
}

/// Returns the pods that may be clients: the configured ones, or every pod of the namespace.
fn clients(plan: &Plan<'_>) -> Vec<NetworkPolicyPeer> {
    let selectors = &plan.spec.security.network_policy.client_selectors;
    if !selectors.is_empty() {
        return selectors.clone();
    }
    vec![NetworkPolicyPeer {
        pod_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    }]
}

fn pods(plan: &Plan<'_>, component: Component) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(labels::selector(plan.pods(component))),
        ..NetworkPolicyPeer::default()
    }
}

fn operator(plan: &Plan<'_>) -> NetworkPolicyPeer {
    let label = |(key, value): (&str, &str)| [(key.to_owned(), value.to_owned())].into();
    let namespace = match plan.inputs.operator_namespace {
        Some(name) => labels::selector(label((NAMESPACE, name))),
        None => LabelSelector::default(),
    };
    NetworkPolicyPeer {
        namespace_selector: Some(namespace),
        pod_selector: Some(labels::selector(label(OPERATOR))),
        ..NetworkPolicyPeer::default()
    }
}

/// Returns the ports of the etcd members.
fn etcd_ports(plan: &Plan<'_>) -> BTreeSet<i32> {
    let etcd = plan.spec.coordinator.metadata.etcd.iter();
    let ports = etcd.flat_map(|etcd| &etcd.endpoints).filter_map(|endpoint| {
        let (_, port) = endpoint.rsplit_once(':')?;
        port.parse::<u16>().ok()
    });
    ports.map(i32::from).collect()
}

fn to(peer: Option<NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: peer.map(|peer| vec![peer]), ports: Some(ports) }
}

fn tcp(number: i32) -> NetworkPolicyPort {
    port("TCP", number)
}

fn port(protocol: &str, number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(number)),
        end_port: None,
    }
}

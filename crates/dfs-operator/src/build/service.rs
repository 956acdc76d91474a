//! Services: DNS names.

use dfs_crd::ServiceType;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Component;
use super::plan::Plan;
use crate::COORDINATOR_PORT;

/// The port of a datanode's gRPC services.
pub(super) const DATANODE_PORT: u16 = 7080;
/// Port of /metrics, /healthz and /readyz of coordinators.
pub(super) const COORDINATOR_HTTP_PORT: i32 = 7071;
/// Port of /metrics, /healthz and /readyz of datanodes.
pub(super) const DATANODE_HTTP_PORT: i32 = 7081;
/// Names of the ports.
pub(super) const GRPC: &str = "grpc";
pub(super) const HTTP: &str = "http";

impl Component {
    /// Returns the port for clients and other members of the cluster.
    pub(super) fn grpc_port(self) -> i32 {
        i32::from(match self {
            Self::Coordinator => COORDINATOR_PORT,
            Self::Datanode => DATANODE_PORT,
        })
    }

    /// Returns the port of probes and metrics.
    pub(super) fn http_port(self) -> i32 {
        match self {
            Self::Coordinator => COORDINATOR_HTTP_PORT,
            Self::Datanode => DATANODE_HTTP_PORT,
        }
    }
}

/// Returns the Service for clients: coordinators that are ready.
pub(super) fn clients(plan: &Plan<'_>) -> Service {
    let component = Component::Coordinator;
    let wanted = &plan.spec.coordinator.service;
    let mut metadata = plan.metadata(plan.names.coordinator(), component);
    metadata.annotations =
        Some(wanted.annotations.clone()).filter(|annotations| !annotations.is_empty());
    let kind = match wanted.kind {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            selector: Some(plan.pods(component)),
            ports: Some(vec![port(GRPC, component.grpc_port())]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Returns the headless Service of all coordinators: datanodes stay in touch with each, ready or
/// not.
pub(super) fn coordinators(plan: &Plan<'_>) -> Service {
    headless(plan, plan.names.coordinators(), Component::Coordinator)
}

/// Returns the headless Service of all datanodes, ready or not: an address must not vanish while
/// its pod starts.
pub(super) fn datanodes(plan: &Plan<'_>) -> Service {
    headless(plan, plan.names.datanodes(), Component::Datanode)
}

fn headless(plan: &Plan<'_>, name: String, component: Component) -> Service {
    Service {
        metadata: plan.metadata(name, component),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(plan.pods(component)),
            ports: Some(vec![port(GRPC, component.grpc_port()), port(HTTP, component.http_port())]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: (name == GRPC).then(|| "kubernetes.io/h2c".to_owned()),
        ..ServicePort::default()
    }
}

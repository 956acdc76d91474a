//! Renders the objects of a cluster from its resource and a few facts. Reads nothing.
//!
//! The resource is assumed valid: the API server has checked its rules, and so has
//! `decide::validate`.
//!
//! ```text
//!  Inputs ──► Plan: names, labels, owner, image ──► one file for each kind of object
//!                                              └──► pod: container, probes, volumes, overlay
//! ```

mod budget;
mod claim;
mod config_map;
mod deployment;
mod labels;
mod names;
mod network_policy;
mod overlay;
mod plan;
mod pod;
mod revision;
mod secret;
mod service;
mod service_account;
mod service_monitor;
mod stateful_set;
mod template;
#[cfg(test)]
mod tests;

use dfs_crd::DfsCluster;
use dfs_types::ClusterId;
use serde::Serialize;
use serde_json::Value;

pub use names::Names;
pub use revision::REVISION;
pub use secret::join_secret;
pub use template::{TEMPLATE, keep_template};

use self::plan::Plan;
use crate::kind::{Kind, Object};

/// Inputs of rendering.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The resource.
    pub cluster: &'a DfsCluster,
    /// Id of the cluster, from the join Secret.
    pub cluster_id: ClusterId,
    /// Namespace of the operator, which talks to coordinators; `None` outside Kubernetes.
    pub operator_namespace: Option<&'a str>,
    /// Coordinators to run: 0 while stopped.
    pub coordinators: i32,
    /// Datanodes to run: 0 while stopped, never fewer than exist otherwise.
    pub datanodes: i32,
    /// True if the budget allows the eviction of a datanode now.
    pub may_evict: bool,
}

/// A part of a cluster with its own pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    Coordinator,
    Datanode,
}

/// Returns all objects of a cluster in creation order, except the join Secret. All but the metadata
/// claim have the resource as their controller.
pub fn objects(inputs: &Inputs<'_>) -> Vec<Object> {
    let plan = Plan::new(inputs);
    let spec = plan.spec;
    let mut objects = Vec::new();
    let components = [Component::Coordinator, Component::Datanode];
    for component in components {
        objects.extend(
            service_account::build(&plan, component).map(|account| {
                object(Kind::ServiceAccount, account.metadata.name.clone(), &account)
            }),
        );
    }
    for config in [config_map::coordinator(&plan), config_map::datanode(&plan)] {
        objects.push(object(Kind::ConfigMap, config.metadata.name.clone(), &config));
    }
    for service in
        [service::clients(&plan), service::coordinators(&plan), service::datanodes(&plan)]
    {
        objects.push(object(Kind::Service, service.metadata.name.clone(), &service));
    }
    if spec.security.network_policy.enabled {
        for policy in [network_policy::coordinator(&plan), network_policy::datanode(&plan)] {
            objects.push(object(Kind::NetworkPolicy, policy.metadata.name.clone(), &policy));
        }
    }
    for component in components {
        objects.extend(
            budget::build(&plan, component)
                .map(|budget| object(Kind::Budget, budget.metadata.name.clone(), &budget)),
        );
    }
    if spec.monitoring.service_monitor.enabled {
        let monitor = service_monitor::build(&plan);
        objects.push(object(Kind::ServiceMonitor, Some(plan.names.cluster()), &monitor));
    }
    objects.extend(
        claim::metadata(&plan)
            .map(|claim| object(Kind::Claim, claim.metadata.name.clone(), &claim)),
    );
    let deployment = deployment::build(&plan);
    objects.push(workload(Kind::Deployment, deployment.metadata.name.clone(), &deployment));
    let set = stateful_set::build(&plan);
    objects.push(workload(Kind::StatefulSet, set.metadata.name.clone(), &set));
    objects
}

fn object(kind: Kind, name: Option<String>, object: &impl Serialize) -> Object {
    let mut value = serde_json::to_value(object).expect("objects of Kubernetes are JSON");
    drop_nulls(&mut value);
    Object { kind, name: name.expect("every object is named"), value }
}

fn workload(kind: Kind, name: Option<String>, workload: &impl Serialize) -> Object {
    let mut object = object(kind, name, workload);
    template::remember(&mut object.value);
    object
}

/// Removes nulls: applying a null would remove the field.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

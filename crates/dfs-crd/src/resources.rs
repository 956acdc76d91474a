//! Resources of a pod.

use std::borrow::Cow;
use std::fmt;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A quantity as Kubernetes writes it, such as `10Gi` or `100m`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl Quantity {
    /// Wraps a quantity.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// A string alone, not int-or-string, so that rules may call `quantity()`.
impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        })
    }
}

/// Resource requests and limits of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("quantity(self.requests.memory).compareTo(quantity(self.limits.memory)) <= 0")
        .message("`requests.memory` must be at most `limits.memory`")
        .field_path(".requests"),
    validation = Rule::new("!has(self.limits.cpu) || quantity(self.requests.cpu).compareTo(quantity(self.limits.cpu)) <= 0")
        .message("`requests.cpu` must be at most `limits.cpu`")
        .field_path(".requests")
)]
pub struct Resources {
    /// Resources that a node must have free to run the pod.
    #[serde(default)]
    pub requests: Requests,
    /// Maximum resources of the container.
    #[serde(default)]
    pub limits: Limits,
}

/// Resources that a node must have free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Processors.
    #[serde(default = "default_cpu")]
    pub cpu: Quantity,
    /// Memory.
    #[serde(default = "default_memory")]
    pub memory: Quantity,
}

/// Maximum resources of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Processors; no limit when not set, as throttling a server gains nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory; a container that exceeds it is killed.
    #[serde(default = "default_memory_limit")]
    pub memory: Quantity,
}

impl Default for Requests {
    fn default() -> Self {
        Self { cpu: default_cpu(), memory: default_memory() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu: None, memory: default_memory_limit() }
    }
}

fn default_cpu() -> Quantity {
    Quantity::new("100m")
}

fn default_memory() -> Quantity {
    Quantity::new("128Mi")
}

fn default_memory_limit() -> Quantity {
    Quantity::new("512Mi")
}

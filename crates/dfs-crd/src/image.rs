//! Image of the pods.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The image of coordinators and datanodes. A change is an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.digest) || self.tag != 'latest'")
        .message("`tag` must name a version, not `latest`: it moves, and pods would run different versions")
        .field_path(".tag")
)]
pub struct Image {
    /// Repository of the image, without tag and digest.
    #[serde(default = "default_repository")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._:/-]*$"))]
    pub repository: String,
    /// Version. When not set, that of the operator that first saw the cluster: it is stored, and a
    /// newer operator does not change it.
    #[serde(default = "default_tag")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9_][a-zA-Z0-9._-]*$"))]
    pub tag: String,
    /// Digest; overrides the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[a-f0-9]{64}$"))]
    pub digest: Option<String>,
    /// Pull policy of the nodes.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Names of Secrets that allow nodes to pull it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub pull_secrets: Vec<String>,
}

/// Pull policy of the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Each time a container starts.
    Always,
    /// If the node does not have it.
    #[default]
    IfNotPresent,
    /// Never.
    Never,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            repository: default_repository(),
            tag: default_tag(),
            digest: None,
            pull_policy: PullPolicy::default(),
            pull_secrets: Vec::new(),
        }
    }
}

fn default_repository() -> String {
    "ghcr.io/dfs-io/dfs".to_owned()
}

fn default_tag() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

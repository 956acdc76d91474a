//! Allowed dependencies between crates. Cargo itself would allow cycles through dev-dependencies.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::modules;
use crate::process::{cargo, output};

/// Allowed dependencies of each crate on others of the workspace, of any kind; see also
/// [`DEV_EDGES`].
const EDGES: &[(&str, &[&str])] = &[
    ("dfs-types", &[]),
    ("dfs-runtime", &["dfs-types"]),
    ("dfs-proto", &["dfs-types"]),
    ("dfs-metadata", &["dfs-types"]),
    ("dfs-chunkstore", &["dfs-types"]),
    ("dfs-workers", &["dfs-types"]),
    ("dfs-etcd", &[]),
    ("dfs-engines", &["dfs-types", "dfs-metadata", "dfs-etcd"]),
    ("dfs-transport", &["dfs-types", "dfs-proto"]),
    ("dfs-streamer", &["dfs-types", "dfs-proto", "dfs-transport"]),
    ("dfs-fake", &["dfs-types", "dfs-proto", "dfs-transport", "dfs-streamer"]),
    ("dfs-client", &["dfs-types", "dfs-proto", "dfs-transport", "dfs-streamer"]),
    (
        "dfs-coordinator",
        &["dfs-types", "dfs-proto", "dfs-transport", "dfs-metadata", "dfs-workers", "dfs-runtime"],
    ),
    (
        "dfs-datanode",
        &[
            "dfs-types",
            "dfs-proto",
            "dfs-transport",
            "dfs-chunkstore",
            "dfs-streamer",
            "dfs-workers",
            "dfs-runtime",
        ],
    ),
    ("dfs-crd", &[]),
    ("dfs-kube", &["dfs-types", "dfs-transport", "dfs-crd"]),
    ("dfs-operator", &["dfs-types", "dfs-client", "dfs-runtime", "dfs-crd"]),
    (
        "dfs-cli",
        &[
            "dfs-types",
            "dfs-proto",
            "dfs-transport",
            "dfs-metadata",
            "dfs-engines",
            "dfs-chunkstore",
            "dfs-streamer",
            "dfs-client",
            "dfs-coordinator",
            "dfs-datanode",
            "dfs-runtime",
            "dfs-kube",
        ],
    ),
    (
        "dfs-testkit",
        &[
            "dfs-types",
            "dfs-proto",
            "dfs-transport",
            "dfs-metadata",
            "dfs-etcd",
            "dfs-engines",
            "dfs-chunkstore",
            "dfs-streamer",
            "dfs-client",
            "dfs-coordinator",
            "dfs-datanode",
            "dfs-runtime",
        ],
    ),
    ("dfs-e2e", &["dfs-types", "dfs-client"]),
    ("xtask", &[]),
];

/// Additional dependencies of tests.
const DEV_EDGES: &[(&str, &[&str])] = &[
    // The processes must be able to parse what the operator renders.
    ("dfs-operator", &["dfs-coordinator", "dfs-datanode"]),
    ("dfs-cli", &["dfs-testkit", "dfs-etcd"]),
    ("dfs-client", &["dfs-fake"]),
    // Its capture of log lines.
    ("dfs-transport", &["dfs-runtime"]),
];

/// External crates, by prefix of their names, that a crate must not depend on, with the reason.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("dfs-types", &["tokio", "tonic", "prost", "hyper"], "it contains only the vocabulary"),
    ("dfs-metadata", &["tonic", "prost", "hyper"], "domain crates know nothing of the wire"),
    ("dfs-engines", &["tonic", "prost", "hyper"], "only dfs-etcd knows the protocol of etcd"),
    ("dfs-chunkstore", &["tonic", "prost", "hyper"], "domain crates know nothing of the wire"),
    ("", &["kube", "k8s-openapi"], "only the operator and dfs-kube know Kubernetes"),
];

/// Crates exempt from that; the command line only chooses the API version.
const KUBERNETES: &[&str] = &["dfs-crd", "dfs-kube", "dfs-operator", "dfs-cli", "dfs-e2e"];

/// A dependency as a manifest states it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    is_dev: bool,
}

pub(super) fn check(root: &Path) -> Result<()> {
    let arguments = ["metadata", "--locked", "--no-deps", "--format-version=1"];
    let metadata = serde_json::from_slice(&output(&mut cargo(root, &arguments))?)?;
    let (members, edges) = read(&metadata).context("cargo metadata has an unexpected format")?;
    let mut faults = faults(&members, &edges);
    faults.extend(modules::cycles(root)?);
    if !faults.is_empty() {
        bail!("forbidden edges:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

fn read(metadata: &Value) -> Option<(Vec<String>, Vec<Edge>)> {
    let (mut members, mut edges) = (Vec::new(), Vec::new());
    for package in metadata["packages"].as_array()? {
        let from = package["name"].as_str()?;
        members.push(from.to_owned());
        for dependency in package["dependencies"].as_array()? {
            edges.push(Edge {
                from: from.to_owned(),
                to: dependency["name"].as_str()?.to_owned(),
                is_dev: dependency["kind"].as_str() == Some("dev"),
            });
        }
    }
    Some((members, edges))
}

fn faults(members: &[String], edges: &[Edge]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let allowed_dev: BTreeMap<&str, &[&str]> = DEV_EDGES.iter().copied().collect();
    let mut faults: Vec<String> = members
        .iter()
        .filter(|member| !allowed.contains_key(member.as_str()))
        .map(|member| format!("{member} has no line in xtask/src/verify/edges.rs"))
        .collect();
    for Edge { from, to, is_dev } in edges {
        let may = |table: &BTreeMap<&str, &[&str]>| {
            table.get(from.as_str()).is_some_and(|list| list.contains(&to.as_str()))
        };
        let kind = if *is_dev { "tests of " } else { "" };
        if members.contains(to) && !may(&allowed) && !(*is_dev && may(&allowed_dev)) {
            faults.push(format!("{kind}{from} must not use {to}"));
        }
        let knows_kubernetes = KUBERNETES.contains(&from.as_str());
        let applies = |rule: &&(&str, _, _)| match rule.0 {
            "" => !knows_kubernetes,
            name => name == from,
        };
        for (_, names, why) in FORBIDDEN.iter().filter(applies) {
            if names.iter().any(|name| to.starts_with(name)) {
                faults.push(format!("{kind}{from} must not use {to}: {why}"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(from: &str, to: &str, is_dev: bool) -> Vec<String> {
        let members = EDGES.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        faults(&members, &[Edge { from: from.to_owned(), to: to.to_owned(), is_dev }])
    }

    #[test]
    fn table_has_no_cycle() {
        // Each crate uses only those listed above it.
        for (i, (name, uses)) in EDGES.iter().enumerate() {
            for used in *uses {
                assert!(EDGES[..i].iter().any(|(above, _)| above == used), "{name} uses {used}");
            }
        }
    }

    #[test]
    fn edges_are_one_way() {
        assert_eq!(faults_of("dfs-client", "dfs-streamer", false), [""; 0]);
        assert_eq!(faults_of("dfs-cli", "dfs-testkit", true), [""; 0]);
        assert_eq!(faults_of("dfs-operator", "kube", false), [""; 0]);
        assert_eq!(faults_of("dfs-crd", "k8s-openapi", false), [""; 0]);
        assert_eq!(faults_of("dfs-operator", "dfs-datanode", true), [""; 0]);
        for (from, to, is_dev) in [
            ("dfs-streamer", "dfs-client", false),
            ("dfs-streamer", "dfs-client", true),
            ("dfs-cli", "dfs-testkit", false),
            ("dfs-testkit", "dfs-cli", true),
            ("dfs-metadata", "tonic", true),
            ("dfs-types", "tokio", false),
            ("dfs-coordinator", "kube", false),
            ("dfs-operator", "dfs-datanode", false),
        ] {
            assert_eq!(faults_of(from, to, is_dev).len(), 1, "{from} {to} {is_dev}");
        }
    }

    #[test]
    fn new_crate_requires_a_line() {
        assert_eq!(faults(&["dfs-new".to_owned()], &[]).len(), 1);
    }
}

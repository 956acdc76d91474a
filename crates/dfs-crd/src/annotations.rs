//! Annotations with the prefix of the project: those that a user sets on a
//! [`DfsCluster`](crate::DfsCluster), and those that the operator sets on what it makes.

/// With the value `true` the operator observes the cluster and publishes its status, but changes
/// nothing.
pub const PAUSED: &str = "dfs.io/paused";
/// Any new value restarts the pods of the cluster, one after the other, as an upgrade does.
pub const RESTARTED_AT: &str = "dfs.io/restarted-at";
/// A fingerprint of what the operator applied, by which it sees that it wants something else.
pub const APPLIED: &str = "dfs.io/applied";
/// A fingerprint of all for which pods are restarted; pods with another one are of before.
pub const REVISION: &str = "dfs.io/revision";
/// The pod template that was applied. A newer operator applies it again while the revision stays,
/// so that no pod is restarted because the operator is another.
pub const TEMPLATE: &str = "dfs.io/template";

/// All of them: name, on what, and what it does.
pub(crate) const ALL: [(&str, &str, &str); 5] = [
    (PAUSED, "a DfsCluster, by you", "`true`: the operator looks and reports, but changes nothing"),
    (RESTARTED_AT, "a DfsCluster, by you", "each new value restarts the pods, one after the other"),
    (
        APPLIED,
        "everything that the operator makes",
        "by this fingerprint it sees that it wants something else; leave it alone",
    ),
    (
        REVISION,
        "pods and their templates",
        "what pods are restarted for, as a fingerprint; leave it alone",
    ),
    (
        TEMPLATE,
        "Deployment and StatefulSet",
        "the pod template as it was applied, kept by newer operators; leave it alone",
    ),
];

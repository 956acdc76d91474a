//! Annotations with the prefix of the project: those that a user sets on a
//! [`DfsCluster`](crate::DfsCluster), and those that the operator sets on its objects.

/// With the value `true` the operator observes the cluster and publishes its status, but changes
/// nothing.
pub const PAUSED: &str = "dfs.io/paused";
/// Any new value restarts the pods of the cluster, one after the other, like an upgrade.
pub const RESTARTED_AT: &str = "dfs.io/restarted-at";
/// Fingerprint of what the operator applied, which shows it that the desired state has changed.
pub const APPLIED: &str = "dfs.io/applied";
/// Fingerprint of everything that pods are restarted for; pods with a different one are outdated.
pub const REVISION: &str = "dfs.io/revision";
/// The pod template as applied. A newer operator applies it again while the revision stays, so that
/// a new operator restarts no pod.
pub const TEMPLATE: &str = "dfs.io/template";

/// All annotations: name, object, and effect.
pub(crate) const ALL: [(&str, &str, &str); 5] = [
    (
        PAUSED,
        "a DfsCluster, by you",
        "`true`: the operator observes and reports, but changes nothing",
    ),
    (RESTARTED_AT, "a DfsCluster, by you", "each new value restarts the pods, one after the other"),
    (
        APPLIED,
        "all objects of the operator",
        "fingerprint of the desired state as applied; leave it alone",
    ),
    (
        REVISION,
        "pods and their templates",
        "fingerprint of what pods are restarted for; leave it alone",
    ),
    (
        TEMPLATE,
        "Deployment and StatefulSet",
        "the pod template as applied, kept by newer operators; leave it alone",
    ),
];

//! Types and reasons of conditions: closed lists that people and programs rely on.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An enum whose variants have a name and a meaning.
macro_rules! closed_list {
    ($(#[$meta:meta])* $name:ident { $(#[doc = $doc:literal] $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $(#[doc = $doc] $variant,)* }

        impl $name {
            /// All variants.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// Returns its meaning.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc.trim_ascii(),)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

closed_list! {
    /// Types of conditions. Every one is present from the first reconciliation on.
    ConditionType {
        /// The cluster serves reads and writes, and everything in the spec is in place.
        Ready,
        /// The cluster serves reads and writes, though something may be missing.
        Available,
        /// The operator is changing something.
        Reconciling,
        /// Nothing proceeds until someone takes the action in the message.
        Stalled,
        /// The cluster serves, but lacks nodes or replicas.
        Degraded,
        /// All data has all its replicas.
        FullyReplicated,
        /// Pods are getting a new image or new settings.
        Upgrading,
        /// The spec is valid and can be carried out.
        SpecValid,
        /// The annotation dfs.io/paused keeps the operator from changing anything.
        Paused,
        /// The cluster is being deleted, but something blocks the deletion.
        DeletionBlocked,
        /// Bytes are encrypted between pods and clients.
        TransportSecure,
    }
}

closed_list! {
    /// Reasons of conditions.
    Reason {
        /// Nothing is known yet.
        NotObserved,
        /// The state is as specified.
        AsSpecified,
        /// Its objects are being created.
        Creating,
        /// The cluster serves reads and writes.
        Serving,
        /// No coordinator responds.
        CoordinatorUnavailable,
        /// Datanodes are not ready.
        DatanodesUnavailable,
        /// There are fewer datanodes than replicas that a write needs.
        TooFewDatanodes,
        /// Some chunks lack replicas.
        UnderReplicated,
        /// Some chunks have no reachable replica.
        ChunksMissing,
        /// Some replicas are bad.
        ChunksCorrupt,
        /// Replica counts are not known yet.
        CountsUnknown,
        /// A datanode is lost.
        NodeLost,
        /// Datanodes are being added.
        ScalingUp,
        /// Pods are being replaced, one after the other.
        RollingOut,
        /// The next pod must not be stopped yet.
        RolloutWaiting,
        /// A new pod does not become ready.
        RolloutStuck,
        /// Every pod is as specified.
        UpToDate,
        /// The spec contradicts itself.
        SpecInvalid,
        /// Removing datanodes requires a drain, which this version does not support.
        ScaleDownUnsupported,
        /// Enlarging volumes requires an expansion, which this version does not support.
        ExpansionUnsupported,
        /// The object cannot be read, or an image has a version that this operator does not manage.
        VersionUnsupported,
        /// The definition of the resource is older than the operator.
        DefinitionOutdated,
        /// The metadata store belongs to another cluster.
        ClusterIdMismatch,
        /// The metadata store is empty, although the cluster was created before.
        MetadataLost,
        /// A StorageClass does not exist.
        StorageClassMissing,
        /// A volume cannot be provisioned, or is not provisioned yet.
        VolumePending,
        /// No node has room for a pod, or is allowed to run it.
        Unschedulable,
        /// An image cannot be pulled.
        ImageUnavailable,
        /// A Secret does not exist, or lacks a key.
        SecretMissing,
        /// A container keeps crashing.
        CrashLooping,
        /// The API server refuses an object.
        ApplyRefused,
        /// Another owner has an object of that name.
        NameTaken,
        /// A datanode does not know its failure domain.
        TopologyUnknown,
        /// The annotation dfs.io/paused is set.
        PausedByAnnotation,
        /// The annotation dfs.io/paused is not set.
        NotPaused,
        /// The spec requires that no pod runs.
        Stopped,
        /// It is being deleted.
        Deleting,
        /// It is not being deleted.
        NotDeleting,
        /// Deletion waits for the confirmation that volumes may be deleted.
        ConfirmationMissing,
        /// Deletion waits for an object to be deleted.
        WaitingForObjects,
        /// Channels are plaintext in this version.
        Plaintext,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c16_reasons_are_camel_case() {
        let names = Reason::ALL.iter().map(|reason| reason.as_str());
        for name in names.chain(ConditionType::ALL.iter().map(|kind| kind.as_str())) {
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
        }
        assert_eq!(serde_json::to_value(Reason::RollingOut).unwrap(), "RollingOut");
        assert_eq!(Reason::Stopped.meaning(), "The spec requires that no pod runs.");
    }
}

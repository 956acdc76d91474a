//! Authorisation rules of all rpcs.

use dfs_proto::Method;
use dfs_types::Access;

/// What an rpc requires of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: anyone may call it.
    Anyone,
    /// A grant of any kind.
    AnyGrant,
    /// A grant of this access. The handler checks the paths it covers.
    Grant(Access),
    /// A datanode, which authenticates itself in the call: with the join secret and its node secret
    /// when it registers, with its node key in its first heartbeat.
    Datanode,
    /// A capability of this access for the chunk. Until capabilities exist, a grant.
    Capability(Access),
    /// The id of an open session, which only its opener knows.
    Session,
    /// An order sealed for this node by a coordinator, verified by the handler.
    Order,
}

/// Returns the rule of an rpc. Exhaustive: an rpc without a row does not compile.
pub const fn rule(method: Method) -> Rule {
    match method {
        // The namespace.
        Method::OpenFile
        | Method::Stat
        | Method::ListDirectory
        | Method::GetXattr
        | Method::ListXattrs => Rule::Grant(Access::Read),
        Method::UploadFile
        | Method::ReplanChunk
        | Method::RenewUpload
        | Method::ConfirmUpload
        | Method::AbortUpload
        | Method::MakeDirectory
        | Method::MakeSymlink
        | Method::Rename
        | Method::Delete
        | Method::Undelete
        | Method::SetAttributes
        | Method::SetXattr
        | Method::RemoveXattr => Rule::Grant(Access::Write),

        // The cluster.
        Method::ClusterStatus | Method::Workers | Method::UpgradeStatus | Method::Reflection => {
            Rule::AnyGrant
        }
        Method::SetReplication
        | Method::Init
        | Method::Admit
        | Method::SafeToStop
        | Method::Maintenance
        | Method::Drain
        | Method::Undrain
        | Method::RetireDisk
        | Method::GiveUp
        | Method::Readmit
        | Method::Deregister
        | Method::Forget
        | Method::SetWorker
        | Method::CheckReplicas
        | Method::GcStatus
        | Method::AcknowledgeGc
        | Method::FinalizeUpgrade => Rule::Grant(Access::Admin),
        Method::Register | Method::Heartbeat => Rule::Datanode,

        // Chunks.
        Method::PrepareChunkUpload => Rule::Capability(Access::Write),
        Method::RetrieveChunk | Method::RetrieveSmallReplicas | Method::ReportCorrupt => {
            Rule::Capability(Access::Read)
        }
        Method::ChunkDataStream => Rule::Session,
        Method::AdoptReplica
        | Method::BuildReplica
        | Method::BuildSmallReplicas
        | Method::VerifyReplica
        | Method::DeleteChunks
        | Method::Inventory
        | Method::ListChunks
        | Method::SettleDisk => Rule::Order,

        Method::HealthCheck | Method::HealthWatch => Rule::Anyone,
    }
}

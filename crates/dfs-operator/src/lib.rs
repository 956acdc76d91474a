//! The operator: keeps each `DfsCluster` as its resource says.
//!
//! A reconcile is four steps, each a module: [`observe`] reads everything of one cluster once,
//! [`decide`] is a pure function of that, [`apply`] carries out what was decided, [`publish`] tells
//! what there is to tell. [`build`] makes objects and reads nothing; [`status`] makes the status
//! and writes nothing. [`run`] wires them to watches, the lease and the side door.

pub mod apply;
pub mod args;
mod backoff;
pub mod build;
pub mod controller;
pub mod coordinator;
pub mod decide;
pub mod definition;
pub mod drift;
mod hooks;
pub mod kind;
pub mod lease;
mod metrics;
pub mod observe;
pub mod observed;
pub mod publish;
mod reconcile;
pub mod run;
pub mod status;
mod watches;

/// Who the API server is told made a change.
pub const FIELD_MANAGER: &str = "dfs-operator";
/// The port of a coordinator's gRPC services.
pub const COORDINATOR_PORT: u16 = 7070;

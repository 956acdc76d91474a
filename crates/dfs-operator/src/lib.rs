//! The operator: brings each `DfsCluster` from its observed to its desired state.
//!
//! A reconciliation has four steps, each a module: [`observe`] reads everything about one cluster
//! once, [`decide`] is a pure function of that, [`apply`] carries out the decision, [`publish`]
//! writes status and events. [`build`] renders objects and reads nothing; [`status`] computes the
//! status and writes nothing. [`run`] wires them to watches, the lease and the HTTP server.

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

/// The field manager of the operator's changes.
pub const FIELD_MANAGER: &str = "dfs-operator";
/// The port of a coordinator's gRPC services.
pub const COORDINATOR_PORT: u16 = 7070;

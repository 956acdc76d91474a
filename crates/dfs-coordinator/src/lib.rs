//! The coordinator: names, plans and the state of the cluster, around [`dfs_metadata`].
//!
//! Stateless except for what heartbeats restore within seconds: everything durable is in the
//! metadata engine, everything else is a registry of datanodes built from their heartbeats. File
//! data is never stored here; streams to datanodes are relayed for clients that cannot connect to
//! them.
//!
//! ```text
//!  clients ──► grpc::coordinator ─┐                       ┌─► workers::repair ─► datanodes
//!  nodes ────► grpc::membership ──┼─► Core ─► Namespace ◄─┼─► workers::reaper
//!  operator ─► grpc::admin ───────┘    └─► Registry       └─► workers::deletion ─► datanodes
//!  clients ──► grpc::relay ───────────────────────────────────────────► datanodes
//! ```
//!
//! To start one, call [`init`] once in the lifetime of a cluster, then [`Service::start`] and
//! [`Service::run`]. Any number may run on one engine; the holder of the worker lease does the
//! background work.

mod background;
mod bootstrap;
mod build_slots;
mod candidates;
mod checks;
mod components;
mod core;
mod error;
mod failure;
mod grpc;
mod metrics;
mod node_liveness;
mod recheck_queue;
mod rechecks;
mod refused_nodes;
mod relay;
mod removals;
mod safety_scans;
mod service;
mod settings;
mod unreached_sources;
mod unreadable;
mod verdicts;
mod workers;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use components::Components;
pub use error::Error;
pub use service::{Handle, Service, init};
pub use settings::{InitOptions, Placement, Settings};

/// Locks, ignoring poison: no locked section can fail halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

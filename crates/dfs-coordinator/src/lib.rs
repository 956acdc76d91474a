//! The coordinator: names, plans and the state of the cluster, around [`dfs_metadata`].
//!
//! Stateless but for what can be heard again in seconds: everything that must last is in the
//! metadata engine, everything else is a registry of datanodes, made of their
//! heartbeats. No byte of a file is kept here; streams to datanodes are passed on for clients that
//! cannot connect to them.
//!
//! ```text
//!  clients ──► grpc::coordinator ─┐                       ┌─► workers::repair ─► datanodes
//!  nodes ────► grpc::membership ──┼─► Core ─► Namespace ◄─┼─► workers::reaper
//!  operator ─► grpc::admin ───────┘    └─► Registry       └─► workers::delete ─► datanodes
//!  clients ──► grpc::relay ───────────────────────────────────────────► datanodes
//! ```
//!
//! Who starts one: [`init`] once in the life of a cluster, then [`Service::start`] and
//! [`Service::run`]. Any number may run on one engine; the background work is done by the one
//! that holds the worker lease.

mod bootstrap;
mod core;
mod error;
mod failure;
mod grpc;
mod metrics;
mod placement;
mod registry;
mod relay;
mod service;
mod settings;
mod workers;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use error::Error;
pub use service::{Components, Handle, Service, init};
pub use settings::{InitOptions, JoinSecret, Placement, Settings};

/// Locks; a panic of another holder left nothing half done, as none of the locked sections can
/// fail in the middle.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The datanode: takes chunks from clients and hands them on to replicas while it writes them,
//! serves and replicas them, registers with the coordinators and tells them how it is.
//!
//! It is made of [`Components`] (disks, sockets, clock) under [`Settings`]; [`Service::start`]
//! takes the ports, [`Service::run`] serves. It knows chunks and nodes, and nothing of names.

mod bad_replicas;
mod calls;
mod error;
mod grpc;
mod membership;
mod metrics;
mod node;
mod orders;
mod service;
mod sessions;
mod settings;
mod verifications;

pub use error::Error;
pub use service::{Components, Handle, Service, Store, open_store};
pub use settings::{Disk, Settings};

//! The datanode: accepts chunks from clients and forwards them to downstream nodes while writing,
//! serves and builds replicas, registers with the coordinators and sends them heartbeats.
//!
//! It is built from [`Components`] (disks, sockets, clock) and [`Settings`]; [`Service::start`]
//! opens the ports, [`Service::run`] serves. It knows chunks and nodes, but no names.

mod call_limits;
mod clocks;
mod error;
mod grpc;
mod membership;
mod metrics;
mod node;
mod orders;
mod replica_checks;
mod scrub;
mod scrub_board;
mod service;
mod sessions;
mod settings;
mod unreadable;
mod verdicts;
mod verification_limits;
mod walk;

pub use error::Error;
pub use service::{Components, Handle, Service, Store, open_store};
pub use settings::{Disk, Settings};

//! A thin client of etcd, with time-limited calls to a changing set of members.
//!
//! [`Client`] keeps one lazily made connection per member and uses one of them until it fails.
//! Read-only calls are repeated elsewhere; a transaction is sent once, because an unanswered one
//! may have taken effect. The API is the subset of etcd's own in `proto/etcd/v3`, generated without
//! `protoc`.
//!
//! ```text
//!  Client ── preferred ──► Member ──► Channel (a new one after each unanswered call)
//!         └─ token of the user, renewed when a member no longer knows it
//! ```

mod client;
mod error;
mod member;
mod settings;
#[cfg(feature = "test-server")]
pub mod test_server;
mod watch;

pub use client::{Client, RetryBudget};
pub use error::Error;
pub use settings::{Credentials, Identity, Settings, Tls};
pub use watch::{WatchAnswer, WatchStream};

/// Generated from `proto/etcd/v3/kv.proto`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod mvccpb {
    include!("generated/mvccpb.rs");
}

/// Generated from `proto/etcd/v3/rpc.proto`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod etcdserverpb {
    include!("generated/etcdserverpb.rs");
}

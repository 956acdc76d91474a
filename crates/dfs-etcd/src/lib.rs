//! A thin client of etcd: calls that end in bounded time, on members that come and go.
//!
//! [`Client`] keeps one lazily made connection per member and speaks to one of them until that one
//! fails. Calls that only read are repeated elsewhere; a transaction is sent once, because nobody
//! here can know whether one without an answer took place. The API is a subset of etcd's own,
//! written down in `proto/etcd/v3`, so that nothing needs `protoc`.
//!
//! ```text
//!  Client ── preferred ──► Member ──► Channel (anew after each call without an answer)
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

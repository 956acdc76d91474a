//! The wire contract: generated types, and their conversions to and from domain types.

/// Generated from `proto/dfs/v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod v1 {
    include!("generated/dfs.v1.rs");
}

/// The compiled contract, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/dfs.v1.bin");

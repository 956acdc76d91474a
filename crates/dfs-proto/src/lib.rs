//! The wire contract: generated types, and their conversions to and from domain types.
//!
//! Input is parsed once, on receipt, by the functions of [`wire`], which name the invalid field.
//! Output is converted with `From`. Errors travel as [`Failure`] in the details of a gRPC status.
//! Chunk bytes are handled by [`bulk`].

pub mod bulk;
mod convert;
mod failure;
mod method;
mod order;
pub mod wire;

pub use failure::{Detail, Failure};
pub use method::Method;
pub use order::{Issued, OrderParties, Ordered, Unsealed, open_order, seal_order};
pub use wire::FieldError;

/// Generated from `proto/dfs/v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod v1 {
    include!("generated/dfs.v1.rs");
}

/// The compiled contract, for gRPC reflection.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/dfs.v1.bin");

/// Bytes per message at most, on either side. The largest is a page of 1,000 directory entries with
/// the longest names and symlink targets.
pub const MESSAGE_LEN_MAX: usize = 8 << 20;

/// Bytes per message with a chunk frame at most: its data, and room for the other fields.
pub const FRAME_MESSAGE_LEN_MAX: usize = dfs_types::Frame::DATA_MAX + (64 << 10);
